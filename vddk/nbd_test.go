package vddk_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// nbdServers are the servers that the contract is tested against. IMG stands
// for the raw image, QCOW2 for one converted from it.
var nbdServers = []struct {
	name    string
	tool    string
	args    []string
	granule int64 // of the image
	single  bool  // takes one client at a time: two readers cannot be
}{
	{"qemu-nbd raw", "qemu-nbd", []string{"-t", "-f", "raw", "IMG"}, 512, true},
	{"qemu-nbd raw shared", "qemu-nbd", []string{"-t", "-e", "8", "-f", "raw", "IMG"}, 512, false},
	{"qemu-nbd qcow2", "qemu-nbd", []string{"-t", "--discard=unmap", "-f", "qcow2", "QCOW2"}, 512, true},
	{"nbdkit file", "nbdkit", []string{"-f", "file", "IMG"}, 1, false},
	{"nbdkit one connection", "nbdkit", []string{"-f", "--filter=multi-conn", "file", "IMG", "multi-conn-mode=disable"}, 1, false},
	{"nbdkit no structured replies", "nbdkit", []string{"-f", "--no-sr", "file", "IMG"}, 1, false},
	{"nbdkit blocks of 512", "nbdkit", []string{
		"-f", "--filter=blocksize-policy", "file", "IMG",
		"blocksize-error-policy=error", "blocksize-minimum=512", "blocksize-preferred=4096", "blocksize-maximum=65536",
	}, 512, false},
	{"nbdkit blocks of 4096", "nbdkit", []string{
		"-f", "--filter=blocksize-policy", "file", "IMG",
		"blocksize-error-policy=error", "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=1M",
	}, 4096, false},
	{"nbdkit no zero", "nbdkit", []string{"-f", "--filter=nozero", "file", "IMG"}, 1, false},
	{"nbdkit no extents", "nbdkit", []string{"-f", "--filter=noextents", "file", "IMG"}, 1, false},
	{"nbdkit fua emulated", "nbdkit", []string{"-f", "--filter=fua", "file", "IMG", "fuamode=emulate"}, 1, false},
	{"nbdkit every write fua", "nbdkit", []string{"-f", "--filter=fua", "file", "IMG", "fuamode=force"}, 1, false},
	{"nbdkit one request at a time", "nbdkit", []string{"-f", "--filter=noparallel", "file", "IMG"}, 1, false},
}

func TestNBDContract(t *testing.T) {
	for _, s := range nbdServers {
		t.Run(s.name, func(t *testing.T) {
			movertest.TestDisk(t, movertest.Driver{
				Granule: s.granule, NoHold: s.single,
				Make: func(t testing.TB, content []byte) movertest.Opener {
					server := nbdtest.Unix(t, s.tool, nbdArgs(t, s.args, content)...)
					return nbdOpener(t, server.URI)
				},
			})
		})
	}
}

func TestNBDContractTCP(t *testing.T) {
	movertest.TestDisk(t, movertest.Driver{Make: func(t testing.TB, content []byte) movertest.Opener {
		server := nbdtest.TCP(t, "nbdkit", nbdArgs(t, []string{"-f", "file", "IMG"}, content)...)
		return nbdOpener(t, server.URI)
	}})
}

// nbdArgs puts real images in place of IMG and QCOW2.
func nbdArgs(t testing.TB, args []string, content []byte) []string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(img, content, 0o600); err != nil {
		t.Fatal(err)
	}
	args = slices.Clone(args)
	for i, a := range args {
		switch a {
		case "IMG":
			args[i] = img
		case "QCOW2":
			args[i] = img + ".qcow2"
			nbdtest.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", img, args[i])
		}
	}
	return args
}

func nbdOpener(t testing.TB, uri string) movertest.Opener {
	return func(m movertest.Mode) (mover.Disk, error) {
		opts := vddk.Options{}
		if m == movertest.ReadWrite {
			opts.Mode = vddk.ReadWrite
		}
		disk, err := vddk.OpenNBD(t.Context(), uri, opts)
		if err != nil {
			return nil, err
		}
		return disk, nil
	}
}
