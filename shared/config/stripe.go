package config

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
)

// Mode is the mode of a Stripe key and of Stripe's objects.
type Mode string

// The two modes. Mode is empty if neither a key nor a mode is set.
const (
	ModeLive Mode = "live"
	ModeTest Mode = "test"
)

// Stripe says how to reach Stripe.
type Stripe struct {
	SecretKey Secret `json:"secretKey"`
	// APIBase is a scheme and a host, without a slash at the end.
	APIBase string `json:"apiBase"`
	// AccountID is the account that the key must belong to; "" skips the check.
	AccountID string `json:"accountId"`
	Mode      Mode   `json:"mode"`
	// RequestsPerSecond is the limit of one endpoint for all workers together.
	RequestsPerSecond float64 `json:"requestsPerSecond"`
}

var secretKey = regexp.MustCompile(`^(?:sk|rk)_(live|test)_[A-Za-z0-9_]+$`)

// readKey sets the key and the mode of its prefix.
func (s *Stripe) readKey(key string) error {
	match := secretKey.FindStringSubmatch(key)
	switch {
	case match != nil:
		s.SecretKey, s.Mode = NewSecret(key), Mode(match[1])
		return nil
	case strings.HasPrefix(key, "pk_"):
		return errors.New("is a publishable key, which cannot read subscriptions")
	case strings.HasPrefix(key, "whsec_"):
		return errors.New("is the secret of a webhook endpoint")
	default:
		return errors.New("is not a Stripe key")
	}
}

// readMode sets the mode, which must be the key's if there is a key.
func (s *Stripe) readMode(text string) error {
	mode := Mode(strings.ToLower(text))
	if mode != ModeLive && mode != ModeTest {
		return errNotValid
	}
	if s.Mode != "" && s.Mode != mode {
		return errors.New("does not agree with the key, which is for " + string(s.Mode) + " mode")
	}
	s.Mode = mode
	return nil
}

func (s *Stripe) readBase(text string) error {
	base, err := url.Parse(text)
	switch {
	case err != nil || base.Hostname() == "" || (base.Scheme != "http" && base.Scheme != "https"):
		return errors.New("is not an http or https URL")
	case base.Scheme == "http" && !isLoopback(base.Hostname()):
		return errors.New("would send the key over plain http")
	case base.User != nil:
		return errors.New("contains a user name")
	case strings.Trim(base.Path, "/") != "" || base.RawQuery != "" || base.Fragment != "":
		return errors.New("contains more than scheme and host")
	}
	s.APIBase = base.Scheme + "://" + base.Host
	return nil
}
