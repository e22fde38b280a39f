package vix

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnsupported means that this program was built without the binding.
var ErrUnsupported error = unsupportedError{}

// SectorSize is the unit of the library in bytes, whatever the disk's own is.
const SectorSize = 512

const (
	// MaxRequestVCenter and MaxRequestESXi are the longest requests in bytes
	// that the two take; longer ones fail at once (containerized-data-importer
	// found them, and nbdkit's manual names the first).
	MaxRequestVCenter = 2 << 20
	MaxRequestESXi    = 23 << 20

	// maxPiece bounds what is asked for at once even where more is taken:
	// memory is held for every piece in flight.
	maxPiece = 4 << 20
	// maxInFlight bounds the memory of the pieces of one disk in bytes.
	maxInFlight = 32 << 20
	// maxIdentity is the longest name that PrepareForAccess takes.
	maxIdentity = 50
)

// Level is how much a line of the library's log matters.
type Level uint8

// The library has one callback for each.
const (
	Info Level = iota
	Warning
	Panic
)

// Config says which library is loaded, and how.
type Config struct {
	// LibDir is the folder of the kit: LIBDIR/lib64/libvixDiskLib.so.N.
	LibDir string
	// ConfigFile is passed to InitEx; empty is none.
	ConfigFile string
	// Log gets the library's lines. It is called on threads of the library,
	// concurrently, and must not block. Nil drops them.
	Log func(Level, string)
}

// Params says where a VM is and who asks for it.
type Params struct {
	Server     string
	Port       uint32 // 0 is the default of the library
	VM         string // managed object reference: "vm-42" of a vCenter, "2" of an ESXi
	Thumbprint string // "AA:BB:..." of the server's certificate
	User       string
	Password   string
	Cookie     string // of a session, instead of a password; needs 6.7
}

// Target says which disk of the VM is opened, and how.
type Target struct {
	Path       string // "[datastore] vm/vm.vmdk", as the snapshot names it
	Snapshot   string // managed object reference, or empty
	Transports string // "nbdssl:nbd"; never left to the library
	ReadOnly   bool
	// MaxRequest is the longest request in bytes: MaxRequestVCenter when 0.
	MaxRequest int
}

func (p *Params) validate() error {
	switch {
	case p.Server == "" || p.VM == "" || p.Thumbprint == "":
		return errors.New("server, VM and thumbprint are needed")
	case (p.Password == "") == (p.Cookie == ""):
		return errors.New("either a password or a cookie is needed")
	}
	for _, s := range []string{p.Server, p.VM, p.Thumbprint, p.User, p.Password, p.Cookie} {
		if strings.ContainsRune(s, 0) {
			return errors.New("zero byte in a parameter")
		}
	}
	return nil
}

func (t *Target) validate() error {
	switch {
	case t.Path == "" || t.Transports == "":
		return errors.New("path and transports are needed")
	case strings.ContainsRune(t.Path+t.Snapshot+t.Transports, 0):
		return errors.New("zero byte in a parameter")
	case t.MaxRequest < 0 || t.MaxRequest%SectorSize != 0:
		return fmt.Errorf("largest request of %d bytes: not a multiple of %d", t.MaxRequest, SectorSize)
	}
	return nil
}

// pieces is the length of a piece in bytes, and how many are in flight.
func (t *Target) pieces() (size, count int) {
	size = t.MaxRequest
	if size == 0 {
		size = MaxRequestVCenter
	}
	size = min(size, maxPiece)
	return size, min(maxInFlight/size, 64)
}
