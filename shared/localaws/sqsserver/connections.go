package sqsserver

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// connections that are at a request. http.Server.Shutdown would wait up to 5 s for those on which
// none ever came, and clients open such connections in reserve.
type connections struct {
	mu     sync.Mutex
	active map[net.Conn]bool
}

// track is for http.Server.ConnState.
func (c *connections) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state != http.StateActive {
		delete(c.active, conn)
		return
	}
	if c.active == nil {
		c.active = map[net.Conn]bool{}
	}
	c.active[conn] = true
}

func (c *connections) quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.active) == 0
}

// waitFor the last answer to leave, but no longer than this.
func (c *connections) waitFor(longest time.Duration) {
	const look = time.Millisecond
	again, giveUp := time.NewTicker(look), time.NewTimer(longest)
	defer again.Stop()
	defer giveUp.Stop()
	for !c.quiet() {
		select {
		case <-again.C:
		case <-giveUp.C:
			return
		}
	}
}
