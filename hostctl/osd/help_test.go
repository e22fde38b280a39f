package osd

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// must fails the test on an error.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants wants an error with that text, on one line.
func wants(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("the error is %v, want %q in it", err, text)
	}
	if strings.ContainsAny(err.Error(), "\n\x1b") {
		t.Errorf("the error has control characters: %q", err)
	}
}

// retryable wants an error to say whether the same may work later.
func retryable(t *testing.T, err error, want bool) {
	t.Helper()
	e, is := errors.AsType[interface {
		error
		Retryable() bool
	}](err)
	if got := is && e.Retryable(); got != want {
		t.Errorf("%v: retryable %v, want %v", err, got, want)
	}
}

// class wants an *Error of that class.
func class(t *testing.T, err error, want Class) *Error {
	t.Helper()
	e, is := errors.AsType[*Error](err)
	if !is || e.Class != want {
		t.Fatalf("the error is %v, want one of class %v", err, want)
	}
	return e
}

// logged is a log and what is in it.
func logged() (*slog.Logger, *bytes.Buffer) {
	b := new(bytes.Buffer)
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), b
}
