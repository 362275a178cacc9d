package chaos_test

import (
	"slices"
	"sync"
)

// hooks are functions to call, each until it is removed. Faults of one kind may overlap, and the end of one must not end
// the others.
type hooks[F any] struct {
	mu  sync.Mutex
	all []*F
}

func (h *hooks[F]) add(f F) (remove func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, &f)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all = slices.DeleteFunc(h.all, func(other *F) bool { return other == &f })
	}
}

func (h *hooks[F]) list() []F {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]F, len(h.all))
	for i, f := range h.all {
		all[i] = *f
	}
	return all
}

func call(all *hooks[func()]) {
	for _, f := range all.list() {
		f()
	}
}

// firstFault returns the first fault that a hook returns.
func firstFault[Request, Fault any](all *hooks[func(Request) *Fault]) func(Request) *Fault {
	return func(request Request) *Fault {
		for _, f := range all.list() {
			if fault := f(request); fault != nil {
				return fault
			}
		}
		return nil
	}
}
