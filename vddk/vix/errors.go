package vix

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// Codes of the library that mean something to us: the low 16 bits of what a
// function returns. Every other code is passed on with its number and text.
const (
	codeFail              = 1
	codeNoMemory          = 2
	codeBadArgument       = 3
	codeNoSuchFile        = 4
	codeBusy              = 5
	codeNotSupported      = 6
	codeDiskFull          = 8
	codeReadOnlyFile      = 11
	codeNoAccess          = 13
	codeLocked            = 15
	codeHostLost          = 36
	codeLogin             = 3014
	codeServerNotFound    = 14008
	codeServerRefused     = 14009
	codeSocket            = 14010
	codeServerLost        = 14011
	codePartialChain      = 16003
	codeMismatch          = 16008
	codeCannotConnect     = 18000
	codeOperationDisabled = 20005
	codeAsync             = 25000 // no error: the request will complete later

	// rcContradiction is ours: an answer that the library must not give.
	rcContradiction = 1<<63 | codeFail
)

// Error is what a function of the library returned.
type Error struct {
	Func   string // without its prefix: "Open"
	Object string // the disk or VM
	Raw    uint64 // as returned; the code is in the low 16 bits
	Text   string // by GetErrorText, may be empty
}

// Code is the number that documents use.
func (e *Error) Code() int { return int(e.Raw & 0xFFFF) }

func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = "no text"
	}
	s := fmt.Sprintf("VixDiskLib_%s %s: error %d (%#x), %s", e.Func, e.Object, e.Code(), e.Raw, text)
	if hint := e.hint(); hint != "" {
		s += "; " + hint
	}
	return s
}

// hint is what operators found behind a code that says little.
func (e *Error) hint() string {
	switch e.Code() {
	case codeLogin:
		return "the login was refused: look at user and password or cookie, and at the privileges of the user"
	case codeCannotConnect:
		return "the host cannot be reached from here: look at its name, its ports 443 and 902, and the firewall"
	case codeNoSuchFile:
		if e.Func == "Open" {
			return "no such disk: look at its path, as this snapshot and this server name it, and at the number of the VM"
		}
	case codeFail:
		if e.thumbprint() {
			return "this is almost always the thumbprint: compare it with the SHA-1 one of the server's certificate"
		}
	case codeNoAccess:
		return "this code stands for many things: the network or the NFC port 902 of the host, a disk that is in use, the wrong or no snapshot, " +
			"a missing privilege, no free slot for hotadd, a disk path of another snapshot"
	case codeLocked, codeBusy:
		return "another program, or the VM that is powered on, holds the disk"
	case codePartialChain, codeMismatch:
		return "the chain of the disk is incomplete or does not fit together: name the file as the snapshot does"
	case codeOperationDisabled:
		return "the operation is disabled on this VM, mostly by a backup that did not end"
	}
	return ""
}

// Retryable says whether the same request may succeed, at the latest after the
// disk was opened anew. 13 is among them: before 7.0.3.3 and 8.0.2 every
// network error was that code.
func (e *Error) Retryable() bool {
	switch e.Code() {
	case codeBusy, codeNoAccess, codeLocked, codeHostLost, codeServerNotFound, codeServerRefused,
		codeSocket, codeServerLost, codeCannotConnect, codeOperationDisabled:
		return true
	}
	return false
}

// Denied says that the login was refused, or the server's certificate.
func (e *Error) Denied() bool {
	return e.Code() == codeLogin || e.thumbprint()
}

// thumbprint: what Open says for one that differs, and for little else.
func (e *Error) thumbprint() bool { return e.Code() == codeFail && e.Func == "Open" }

// Unwrap is the errno that comes nearest.
func (e *Error) Unwrap() error {
	switch e.Code() {
	case codeNoMemory:
		return syscall.ENOMEM
	case codeBadArgument:
		return syscall.EINVAL
	case codeNoSuchFile:
		return syscall.ENOENT
	case codeNotSupported:
		return syscall.ENOTSUP
	case codeDiskFull:
		return syscall.ENOSPC
	case codeReadOnlyFile:
		return syscall.EPERM
	case codeBusy, codeLocked:
		return syscall.EBUSY
	}
	return syscall.EIO
}

// ioError is a transfer that was refused or failed.
type ioError struct {
	op          string
	length, off int64
	path        string
	err         error
}

func (e *ioError) Error() string {
	if of, ok := e.err.(*Error); ok && of.Object == e.path { // it names the disk
		return fmt.Sprintf("%s %d bytes at %d: %v", e.op, e.length, e.off, e.err)
	}
	return fmt.Sprintf("%s %d bytes at %d of %s: %v", e.op, e.length, e.off, e.path, e.err)
}

func (e *ioError) Unwrap() error { return e.err }

// Retryable passes the class of the cause on: errors.AsType finds the first type
// with the method.
func (e *ioError) Retryable() bool {
	r, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](e.err)
	return ok && r.Retryable()
}

// LoadError means that the library is not there or cannot be used.
type LoadError struct {
	LibDir string
	Tried  []string // what the dynamic linker said about each name
}

func (e *LoadError) Error() string {
	return fmt.Sprintf("no usable libvixDiskLib in %s: %s", e.LibDir, strings.Join(e.Tried, "; "))
}

// Unwrap is fs.ErrNotExist.
func (e *LoadError) Unwrap() error { return fs.ErrNotExist }

// Usage is true: the library has to be installed, or named.
func (e *LoadError) Usage() bool { return true }

// unsupportedError is ErrUnsupported's type.
type unsupportedError struct{}

func (unsupportedError) Error() string {
	return "built without cgo, or not for linux/amd64: the VDDK library cannot be called; build haulback-vddk with CGO_ENABLED=1 and gcc"
}

// Usage is true: another worker has to be installed.
func (unsupportedError) Usage() bool { return true }
