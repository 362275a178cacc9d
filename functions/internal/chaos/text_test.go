package chaos_test

import (
	"crypto/rand"
	"log/slog"
)

// cryptoText is a text that occurs nowhere else.
func cryptoText() string { return rand.Text() }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
