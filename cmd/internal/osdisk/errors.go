package osdisk

import (
	"errors"
	"syscall"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/osd"
)

// Error is why a volume is not opened. It says of itself what exit codes and the
// reasons of jobs are made of: errors.Is finds syscall.EBUSY where another node has
// the volume.
type Error struct {
	URI string
	Err error
}

// Error implements error.
func (e *Error) Error() string { return e.URI + ": " + e.Err.Error() }

// Unwrap is what was wrong.
func (e *Error) Unwrap() error { return e.Err }

// Usage: somebody has to name something else, or configure it.
func (e *Error) Usage() bool {
	inner, ok := errors.AsType[interface {
		error
		Usage() bool
	}](e.Err)
	_, many := errors.AsType[*hostctl.AmbiguousError](e.Err)
	return ok && inner.Usage() || many || errors.Is(e.Err, hostctl.ErrNotFound)
}

// Denied: the token may not.
func (e *Error) Denied() bool { return e.class() == osd.Auth }

// Is knows a volume that another node has for one that is in use.
func (e *Error) Is(target error) bool { return target == syscall.EBUSY && e.class() == osd.Elsewhere }

// class is that of the server's error, or Refused.
func (e *Error) class() osd.Class {
	if inner, ok := errors.AsType[*osd.Error](e.Err); ok {
		return inner.Class
	}
	return osd.Refused
}
