package nbd_test

import (
	"net"
	"os"
	"path/filepath"
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
