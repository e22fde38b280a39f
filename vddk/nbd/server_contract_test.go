package nbd_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
)

// bareDevice hides Zero and NextData of a disk.
type bareDevice struct{ nbd.Device }

// TestServerContract is the contract of a disk through our own client and
// server, in every shape that an export can have.
func TestServerContract(t *testing.T) {
	for _, c := range []struct {
		name    string
		network string
		granule int64
		cfg     nbd.ServerConfig
		shape   func(x *nbd.Export)
	}{
		{"unix", "unix", 1, nbd.ServerConfig{}, nil},
		{"tcp", "tcp", 1, nbd.ServerConfig{}, nil},
		{"one block of memory", "unix", 1, nbd.ServerConfig{MaxMemory: mib}, nil},
		{"one connection", "unix", 1, nbd.ServerConfig{}, func(x *nbd.Export) { x.NoMultiConn = true }},
		{"sectors", "unix", 512, nbd.ServerConfig{}, func(x *nbd.Export) { x.MinBlock = 512 }},
		{"pages, short requests", "tcp", 4096, nbd.ServerConfig{}, func(x *nbd.Export) { x.MinBlock, x.MaxRequest = 4096, 65536 }},
		{"bare", "unix", 1, nbd.ServerConfig{}, func(x *nbd.Export) { x.Device = bareDevice{x.Device} }},
		{"no trim, slow zero", "unix", 1, nbd.ServerConfig{}, func(x *nbd.Export) { x.NoTrim, x.FastZero = true, false }},
	} {
		t.Run(c.name, func(t *testing.T) {
			movertest.TestDisk(t, movertest.Driver{Granule: c.granule, Make: func(t testing.TB, content []byte) movertest.Opener {
				path := filepath.Join(t.TempDir(), "image")
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				x := nbd.Export{Name: "d", Device: disk(t, path, vddk.ReadWrite), FastZero: true}
				if c.shape != nil {
					c.shape(&x)
				}
				cfg := c.cfg
				cfg.Exports = []nbd.Export{x}
				r := startServer(t, cfg)
				return opener(t, r.at(c.network, "d"))
			}})
		})
	}
}

// TestServerContractTwice has a server export what our client reads from
// another server.
func TestServerContractTwice(t *testing.T) {
	movertest.TestDisk(t, movertest.Driver{Make: func(t testing.TB, content []byte) movertest.Opener {
		path := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		first := startServer(t, nbd.ServerConfig{Exports: []nbd.Export{{Device: disk(t, path, vddk.ReadWrite)}}})
		second := startServer(t, nbd.ServerConfig{Exports: []nbd.Export{{Device: disk(t, first.uri(""), vddk.ReadWrite)}}})
		return opener(t, second.uri(""))
	}})
}

// at is the URI of an export on the socket, or on a TCP port that is opened.
func (r *serverRig) at(network, export string) string {
	r.t.Helper()
	if network == "unix" {
		return r.uri(export)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.serve(ln)
	return "nbd://" + ln.Addr().String() + "/" + export
}

func opener(t testing.TB, uri string) movertest.Opener {
	return func(m movertest.Mode) (mover.Disk, error) {
		opts := vddk.Options{}
		if m == movertest.ReadWrite {
			opts.Mode = vddk.ReadWrite
		}
		disk, err := vddk.Open(t.Context(), uri, opts)
		if err != nil {
			return nil, err
		}
		return disk, nil
	}
}

// retryDevice fails in a way that a new open may mend.
type retryDevice struct{ nbd.Device }

func (retryDevice) ReadAt([]byte, int64) (int, error) { return 0, retryError{} }

type retryError struct{}

func (retryError) Error() string   { return "worker gone" }
func (retryError) Retryable() bool { return true }

// badDevice fails for good.
type badDevice struct{ nbd.Device }

func (badDevice) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }

// TestServerKeepsClass wants our client to take a retryable error of the
// server's device for one, and no other.
func TestServerKeepsClass(t *testing.T) {
	d := disk(t, image(t, mib, 1), vddk.ReadOnly)
	r := startServer(t, nbd.ServerConfig{Exports: []nbd.Export{
		{Name: "retry", Device: retryDevice{d}, ReadOnly: true}, {Name: "bad", Device: badDevice{d}, ReadOnly: true},
	}})
	for name, want := range map[string]bool{"retry": true, "bad": false} {
		c := disk(t, r.uri(name), vddk.ReadOnly)
		_, err := c.ReadAt(make([]byte, 512), 0)
		e, ok := errors.AsType[interface {
			error
			Retryable() bool
		}](err)
		if err == nil || (ok && e.Retryable()) != want || errors.Is(err, syscall.EIO) == want {
			t.Errorf("%s: %v is retryable: %v, want %v", name, err, !want, want)
		}
	}
}
