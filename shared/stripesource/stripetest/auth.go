package stripetest

import (
	"net/http"
	"strings"
)

const (
	testInfix = "k_test_"
	liveInfix = "k_live_"
)

// requestKey returns the key of a request, from Bearer or Basic authentication.
func requestKey(r *http.Request) string {
	if user, _, ok := r.BasicAuth(); ok {
		return user
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// authenticate accepts the server's key and its twin of the other mode.
func (s *Server) authenticate(key string) *apiError {
	accepted := s.Key()
	switch key {
	case "":
		return errNoKey()
	case accepted, twin(accepted):
		return nil
	default:
		return errBadKey(key)
	}
}

// hides reports whether the key is of the other mode than the objects.
func (s *Server) hides(key string) bool {
	return isLive(key) != s.opts.LiveMode
}

func isLive(key string) bool { return strings.Contains(key, liveInfix) }

func twin(key string) string {
	if isLive(key) {
		return strings.Replace(key, liveInfix, testInfix, 1)
	}
	return strings.Replace(key, testInfix, liveInfix, 1)
}

// redact returns the key as Stripe shows it: with its kind and its last four characters.
func redact(key string) string {
	const tail = 4
	kind := len("sk_test_")
	if !strings.Contains(key, testInfix) && !strings.Contains(key, liveInfix) {
		kind = 0
	}
	if len(key) <= kind+tail {
		return strings.Repeat("*", len(key))
	}
	return key[:kind] + strings.Repeat("*", len(key)-kind-tail) + key[len(key)-tail:]
}
