package nbd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
)

// writable is a rig with one export of a file, and the file.
func writable(t *testing.T, size int64, seed uint64) (*serverRig, string) {
	t.Helper()
	path := image(t, size, seed)
	return startServer(t, nbd.ServerConfig{Exports: []nbd.Export{{Device: disk(t, path, vddk.ReadWrite), FastZero: true}}}), path
}

// TestServerInfo is what nbdinfo learns before a byte is read.
func TestServerInfo(t *testing.T) {
	needTools(t, "nbdinfo")
	path := image(t, 3*mib, 1)
	d := disk(t, path, vddk.ReadOnly)
	r := startServer(t, nbd.ServerConfig{Exports: []nbd.Export{
		{Name: "ro", Description: "a disk of øl", Device: d, ReadOnly: true},
		{Name: "rw/ø", Device: disk(t, image(t, 2*mib, 2), vddk.ReadWrite), MinBlock: 512, PreferredBlock: 65536, MaxRequest: 2 * mib, NoTrim: true, NoMultiConn: true},
	}})
	i := nbdinfo(t, r.uri("ro"))
	want := exportInfo{
		Name: "ro", Description: "a disk of øl", Size: 3 * mib, ReadOnly: true, Flush: true, FUA: true, DF: true, Multi: true,
		Contexts: []string{"base:allocation"}, Minimum: 1, Preferred: 4096, Maximum: 32 * mib,
	}
	if got := fmt.Sprint(i.Exports); i.Protocol != "newstyle-fixed" || !i.Structured || got != fmt.Sprint([]exportInfo{want}) {
		t.Errorf("nbdinfo of ro: %+v\nwant export %+v", i, want)
	}
	rw := nbdinfo(t, r.uri("rw/%C3%B8")).Exports[0]
	if rw.ReadOnly || rw.Trim || !rw.Zero || !rw.Fast || rw.Multi || rw.Minimum != 512 || rw.Preferred != 65536 || rw.Maximum != 2*mib {
		t.Errorf("nbdinfo of rw: %+v", rw)
	}
	if list := nbdinfo(t, "--list", r.uri("")); len(list.Exports) != 2 || list.Exports[0].Name != "ro" || list.Exports[1].Name != "rw/ø" {
		t.Errorf("nbdinfo --list: %+v", list)
	}
	if got := strings.TrimSpace(run(t, "nbdinfo", "--size", r.uri("ro"))); got != "3145728" {
		t.Errorf("nbdinfo --size: %s", got)
	}
	if out, err := command(t, "nbdinfo", r.uri("")); err == nil || !strings.Contains(out, "No such file") {
		t.Errorf("nbdinfo of an export that is not there: %v, %s", err, out)
	}
}

// mapped is an extent of nbdinfo --map --json, or of qemu-img map.
type mapped struct {
	Offset, Start, Length int64
	Type                  int
	Zero, Data            bool
}

// TestServerMap compares the map with the file system's own word for the file.
func TestServerMap(t *testing.T) {
	needTools(t, "nbdinfo", "qemu-img")
	path := image(t, 64*mib+512, 3)
	var there, direct, qemu []mapped
	decode(t, run(t, "qemu-img", "map", "--output=json", "-f", "raw", path), &direct) // before it is locked
	r := startServer(t, nbd.ServerConfig{Exports: []nbd.Export{{Device: disk(t, path, vddk.ReadOnly), ReadOnly: true}}})
	decode(t, run(t, "nbdinfo", "--json", "--map", r.uri("")), &there)
	decode(t, run(t, "qemu-img", "map", "--output=json", "-f", "raw", r.uri("")), &qemu)
	var a, b, c strings.Builder
	for _, m := range there {
		fmt.Fprintln(&a, m.Offset, m.Length, m.Type == 0)
	}
	for _, m := range direct {
		fmt.Fprintln(&b, m.Start, m.Length, m.Data)
	}
	for _, m := range qemu {
		fmt.Fprintln(&c, m.Start, m.Length, m.Data)
	}
	if a.String() != b.String() || b.String() != c.String() || len(there) < 20 {
		t.Errorf("nbdinfo --map:\n%s\nqemu-img map of the file:\n%s\nqemu-img map through the server:\n%s", &a, &b, &c)
	}
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// TestServerNbdcopy copies in both directions with every shape of requests.
func TestServerNbdcopy(t *testing.T) {
	needTools(t, "nbdcopy")
	const size = 24*mib + 1536
	for _, args := range [][]string{
		{},
		{"--connections=1"},
		{"--connections=8", "--threads=4"},
		{"--requests=1"},
		{"--requests=200", "--connections=3"},
		{"--request-size=4096", "--requests=64"},
		{"--request-size=33554432"},
		{"--allocated"},
		{"--destination-is-zero"},
		{"--synchronous"},
		{"--no-extents", "--flush"},
		{"--sparse=0"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			r, path := writable(t, size, 4)
			out := filepath.Join(t.TempDir(), "out")
			if err := os.WriteFile(out, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "nbdcopy", append(args, r.uri(""), out)...)
			equalFiles(t, path, out)
			other := image(t, size, 5)
			if strings.Contains(strings.Join(args, " "), "zero") { // then it has to be
				if err := os.Truncate(path, 0); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(path, size); err != nil {
					t.Fatal(err)
				}
			}
			run(t, "nbdcopy", append(args, other, r.uri(""))...)
			equalFiles(t, path, other)
		})
	}
}

// TestServerQemuImg has qemu read, write and compare.
func TestServerQemuImg(t *testing.T) {
	needTools(t, "qemu-img")
	r, path := writable(t, 40*mib, 6)
	if out := run(t, "qemu-img", "info", r.uri("")); !strings.Contains(out, "virtual size: 40 MiB") {
		t.Errorf("qemu-img info:\n%s", out)
	}
	first := image(t, 40*mib, 6)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", first, r.uri(""))
	qcow := filepath.Join(t.TempDir(), "q.qcow2")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", r.uri(""), qcow)
	run(t, "qemu-img", "compare", "-F", "raw", qcow, r.uri(""))
	other := image(t, 40*mib, 7)
	for _, args := range [][]string{{}, {"-W"}, {"-m", "16"}, {"-S", "0"}} {
		run(t, "qemu-img", append(append([]string{"convert", "-n", "-f", "raw", "-O", "raw"}, args...), other, r.uri(""))...)
		equalFiles(t, path, other)
		run(t, "qemu-img", append(append([]string{"convert", "-n", "-f", "qcow2", "-O", "raw"}, args...), qcow, r.uri(""))...)
		equalFiles(t, path, first)
	}
	run(t, "qemu-img", "bench", "-f", "raw", "-c", "2000", "-d", "64", "-s", "4096", r.uri(""))
	run(t, "qemu-img", "bench", "-f", "raw", "-w", "-c", "500", "-d", "32", "-s", "65536", "--flush-interval=50", r.uri(""))
}

// TestServerQemuIO writes patterns that are checked in the file itself.
func TestServerQemuIO(t *testing.T) {
	needTools(t, "qemu-io")
	r, path := writable(t, 16*mib, 8)
	run(t, "qemu-io", "-f", "raw", "-t", "none", "-d", "unmap", r.uri(""),
		"-c", "write -P 0x11 0 1M", "-c", "write -P 0x22 1M 3M", "-c", "write -f -P 0x33 5M 64k",
		"-c", "write -z 1M 64k", "-c", "write -z -u 2M 128k", "-c", "discard 3M 1M", "-c", "flush",
		"-c", "aio_write -P 0x44 6M 2M", "-c", "aio_write -P 0x55 8M 2M", "-c", "aio_write -P 0x66 10M 2M", "-c", "aio_flush",
		"-c", "write -P 0x77 16776704 512", "-c", "read -P 0x11 0 1M", "-c", "read -P 0 1M 64k", "-c", "read -P 0x77 16776704 512")
	for _, c := range []struct {
		off, length int64
		value       byte
	}{
		{0, mib, 0x11},
		{mib, 65536, 0},
		{mib + 65536, mib - 65536, 0x22},
		{2 * mib, 128 << 10, 0},
		{3 * mib, mib, 0},
		{5 * mib, 65536, 0x33},
		{6 * mib, 2 * mib, 0x44},
		{8 * mib, 2 * mib, 0x55},
		{10 * mib, 2 * mib, 0x66},
		{16*mib - 512, 512, 0x77},
	} {
		wantFill(t, path, c.off, c.length, c.value)
	}
}

// wantFill reads the file itself.
func wantFill(t *testing.T, path string, off, length int64, value byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range b[off : off+length] {
		if x != value {
			t.Errorf("byte %d is %#x, want %#x", off+int64(i), x, value)
			return
		}
	}
}

// TestServerBehindNbdkit has nbdkit's nbd plugin as the client, and its tls and
// structured replies in all shapes: what it serves equals the file.
func TestServerBehindNbdkit(t *testing.T) {
	needTools(t, "nbdkit", "nbdcopy", "nbdinfo")
	r, path := writable(t, 12*mib, 9)
	front := startNbdkit(t, "nbd", "socket="+r.socket)
	out := filepath.Join(t.TempDir(), "out")
	run(t, "nbdcopy", front, out)
	equalFiles(t, path, out)
	other := image(t, 12*mib, 10)
	run(t, "nbdcopy", "--flush", other, front)
	equalFiles(t, path, other)
}

// TestServerReadOnly refuses every change.
func TestServerReadOnly(t *testing.T) {
	needTools(t, "qemu-io", "nbdcopy")
	path := image(t, 4*mib, 11)
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := disk(t, path, vddk.ReadWrite) // the export refuses, not the disk
	r := startServer(t, nbd.ServerConfig{Exports: []nbd.Export{{Device: d, ReadOnly: true}}})
	if out, err := command(t, "nbdcopy", image(t, 4*mib, 12), r.uri("")); err == nil {
		t.Errorf("nbdcopy wrote to a read-only export:\n%s", out)
	}
	if out, err := command(t, "qemu-io", "-f", "raw", r.uri(""), "-c", "write 0 64k"); err == nil {
		t.Errorf("qemu-io wrote to a read-only export:\n%s", out)
	}
	run(t, "qemu-io", "-r", "-f", "raw", r.uri(""), "-c", "read 0 4M")
	if got, _ := os.ReadFile(path); string(got) != string(want) {
		t.Error("the file changed")
	}
}
