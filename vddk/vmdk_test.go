package vddk_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/mover/movertest"
	"github.com/haulback/haulback/vddk"
)

var _ fullDisk = (*vddk.VMDK)(nil)

// need skips loudly when a tool is missing.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
}

// header is what stands above the extents in a descriptor of vSphere's.
const header = "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=fd71677b\nparentCID=ffffffff\n" +
	"isNativeSnapshot=\"no\"\ncreateType=\"vmfs\"\n\n# Extent description\n"

// trailer is what stands below them.
const trailer = "\n# The Disk Data Base \n#DDB\n\nddb.adapterType = \"lsilogic\"\nddb.deletable = \"true\"\n" +
	"ddb.longContentID = \"6ed2c87e7a10ae14dc6bc1d4fd71677b\"\nddb.thinProvisioned = \"1\"\n" +
	"ddb.uuid = \"60 00 C2 94 44 3e 50 05-5c d6 e2 4f be 78 09 08\"\nddb.virtualHWVersion = \"13\"\n"

// writeVMDK writes a descriptor with these extent lines, and returns its path.
func writeVMDK(t testing.TB, dir, extents string) string {
	t.Helper()
	path := filepath.Join(dir, "vm.vmdk")
	if err := os.WriteFile(path, []byte(header+extents+"\n"+trailer), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func put(t testing.TB, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// vmfs makes the VMDK that ESXi would.
func vmfs(t testing.TB, dir string, content []byte) string {
	put(t, dir, "vm-flat.vmdk", content)
	return writeVMDK(t, dir, fmt.Sprintf("RW %d VMFS \"vm-flat.vmdk\"", len(content)/512))
}

// split lays the content over files of odd sizes, one of them with other bytes
// before and after its extent.
func split(t testing.TB, dir string, content []byte) string {
	var lines []string
	rest := content
	for i, n := range []int{1, 7, 2000, 3333} {
		put(t, dir, fmt.Sprintf("f%d.vmdk", i), rest[:n*512])
		lines, rest = append(lines, fmt.Sprintf("RW %d FLAT \"f%d.vmdk\" 0", n, i)), rest[n*512:]
	}
	guard := bytes.Repeat([]byte{0xDB}, 5*512)
	put(t, dir, "last.vmdk", append(append(bytes.Clone(guard), rest...), guard...))
	return writeVMDK(t, dir, strings.Join(append(lines, fmt.Sprintf("RW %d FLAT \"last.vmdk\" 5", len(rest)/512)), "\r\n"))
}

// convert lets qemu-img make the VMDK.
func convert(subformat string) func(testing.TB, string, []byte) string {
	return func(t testing.TB, dir string, content []byte) string {
		put(t, dir, "raw.img", content)
		path := filepath.Join(dir, "vm.vmdk")
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+subformat, filepath.Join(dir, "raw.img"), path)
		return path
	}
}

// created lets the driver make the VMDK and write its content.
func created(query string) func(testing.TB, string, []byte) string {
	return func(t testing.TB, dir string, content []byte) string {
		path := filepath.Join(dir, "vm.vmdk")
		opts := vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: int64(len(content))}
		d, err := vddk.Open(t.Context(), "vmdk://"+path+query, opts)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.WriteAt(content, 0)
		if err := errors.Join(err, d.Flush(), d.Close()); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

var vmdkMakers = []struct {
	name string
	make func(testing.TB, string, []byte) string
	qemu bool
}{
	{"vmfs", vmfs, false},
	{"split", split, false},
	{"created", created(""), false},
	{"created vmfs", created("?createType=vmfs"), false},
	{"qemu monolithicFlat", convert("monolithicFlat"), true},
	{"qemu twoGbMaxExtentFlat", convert("twoGbMaxExtentFlat"), true},
}

func TestVMDK(t *testing.T) {
	for _, m := range vmdkMakers {
		t.Run(m.name, func(t *testing.T) {
			if m.qemu {
				need(t, "qemu-img")
			}
			movertest.TestDisk(t, movertest.Driver{Granule: 512, Make: func(t testing.TB, content []byte) movertest.Opener {
				return opener(t, "vmdk://"+m.make(t, t.TempDir(), content))
			}})
		})
	}
}

// wantQemu compares the VMDK with content by qemu-img.
func wantQemu(t *testing.T, path string, content []byte) {
	t.Helper()
	raw := newImage(t, t.TempDir(), content)
	if out, err := exec.Command("qemu-img", "compare", "-f", "vmdk", "-F", "raw", path, raw).CombinedOutput(); err != nil {
		t.Errorf("qemu-img compare: %v: %s", err, out)
	}
}

// TestVMDKWithQemu: qemu reads what we wrote, we read what qemu wrote, and both
// go on with what the other made of the descriptor.
func TestVMDKWithQemu(t *testing.T) {
	need(t, "qemu-img", "qemu-io")
	for _, m := range vmdkMakers {
		t.Run(m.name, func(t *testing.T) {
			content := noise(5 << 20)
			path := m.make(t, t.TempDir(), content)
			for round := range 3 {
				d := open(t, "vmdk://"+path, vddk.ReadWrite)
				p := bytes.Repeat([]byte{byte(round + 1)}, 1<<20+3)
				off := int64(700_001 + round*1000)
				copy(content[off:], p)
				e := cbt.Extent{Off: 3<<20 - 7, Len: 300_000 + int64(round)}
				clear(content[e.Off:e.End()])
				_, err := d.WriteAt(p, off)
				if err := errors.Join(err, d.Zero(e, cbt.Deallocate), d.Flush(), d.Check(), d.Close()); err != nil {
					t.Fatal(err)
				}
				wantQemu(t, path, content)
				run(t, "qemu-io", "-f", "vmdk", "-c", fmt.Sprintf("write -P %d 1000k 20k", 100+round), path)
				copy(content[1000<<10:], bytes.Repeat([]byte{byte(100 + round)}, 20<<10))
				got := make([]byte, len(content))
				d = open(t, "vmdk://"+path, vddk.ReadOnly)
				if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
					t.Errorf("round %d: what qemu-io wrote is not read (%v)", round, err)
				}
				d.Close()
			}
			if out := run(t, "qemu-img", "info", "-f", "vmdk", path); !strings.Contains(out, "virtual size: 5 MiB") {
				t.Errorf("qemu-img info: %s", out)
			}
		})
	}
}

// TestVMDKSplitByQemu: more than one extent, as qemu-img cuts them.
func TestVMDKSplitByQemu(t *testing.T) {
	need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "vm.vmdk")
	const size = 4<<30 + 1<<20
	run(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", path, fmt.Sprint(size))
	d := open(t, "vmdk://"+path, vddk.ReadWrite)
	if d.Size() != size || !strings.Contains(d.Describe().Detail, "3 extents") {
		t.Errorf("size %d, %s", d.Size(), d.Describe().Detail)
	}
	for _, off := range []int64{2<<30 - 1000, 4<<30 - 5} {
		if _, err := d.WriteAt(bytes.Repeat([]byte{7}, 4096), off); err != nil {
			t.Fatal(err)
		}
		if e, err := d.NextData(off - 1<<20); err != nil || e.Off > off || e.Off < off-1<<20 {
			t.Errorf("map before %d: %v, %v", off, e, err)
		}
	}
	if err := errors.Join(d.Flush(), d.Close()); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{2<<30 - 1000, 4<<30 - 5} {
		out := run(t, "qemu-io", "-r", "-f", "vmdk", "-c", fmt.Sprintf("read -P 7 %d 4096", off), "-c", fmt.Sprintf("read -P 0 %d 3000", off-3000), path)
		if strings.Contains(out, "failed") {
			t.Error(out)
		}
	}
}

var cidLine = regexp.MustCompile(`(?m)^CID=([0-9a-f]+)\r?$`)

func contentID(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := cidLine.FindSubmatch(text)
	if m == nil {
		t.Fatalf("no CID in %s", text)
	}
	return string(m[1])
}

// TestVMDKContentID: it changes before the first write, once for each open, and
// nothing else in the descriptor does.
func TestVMDKContentID(t *testing.T) {
	dir := t.TempDir()
	path := vmfs(t, dir, noise(1<<20))
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, "vmdk://"+path, vddk.ReadWrite)
	_, err1 := d.WriteAt(nil, 0)
	_, err2 := d.ReadAt(make([]byte, 10), 0)
	if err := errors.Join(err1, err2, d.Flush()); err != nil || contentID(t, path) != "fd71677b" {
		t.Fatalf("nothing was written: CID is %s (%v)", contentID(t, path), err)
	}
	if err := d.Zero(cbt.Extent{Len: 1}, cbt.Keep); err != nil {
		t.Fatal(err)
	}
	first := contentID(t, path)
	if _, err := d.WriteAt([]byte("x"), 5); err != nil || contentID(t, path) != first || first == "fd71677b" || len(first) != 8 {
		t.Errorf("CID %s after the first write, %s after the second (%v)", first, contentID(t, path), err)
	}
	d.Close()
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	long := regexp.MustCompile(`longContentID = "([0-9a-f]{24})` + first + `"`)
	if !long.Match(after) || bytes.Contains(after, []byte("6ed2c87e7a10ae14dc6bc1d4")) {
		t.Errorf("the long content ID does not follow:\n%s", after)
	}
	after = cidLine.ReplaceAll(long.ReplaceAll(after, []byte(`longContentID = "6ed2c87e7a10ae14dc6bc1d4fd71677b"`)), []byte("CID=fd71677b"))
	if !bytes.Equal(after, before) {
		t.Errorf("more than the IDs changed:\n%s", after)
	}
	d = open(t, "vmdk://"+path, vddk.ReadWrite)
	if _, err := d.WriteAt([]byte("x"), 5); err != nil || contentID(t, path) == first {
		t.Errorf("opened anew: the CID is still %s (%v)", first, err)
	}
}

// TestVMDKShortContentID: qemu writes no leading zeros.
func TestVMDKShortContentID(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a-flat.vmdk", noise(1024))
	path := filepath.Join(dir, "a.vmdk")
	for _, id := range []string{"f", "0", "12345"} {
		text := "# Disk DescriptorFile\r\nversion=1\r\nCID=" + id + "\r\nparentCID=ffffffff\r\ncreateType=\"monolithicFlat\"\r\nRW 2 FLAT \"a-flat.vmdk\" 0\r\n"
		put(t, dir, "a.vmdk", []byte(text))
		d := open(t, "vmdk://"+path, vddk.ReadWrite)
		if _, err := d.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		d.Close()
		now := contentID(t, path)
		if st, err := os.Stat(path); err != nil || st.Size() != int64(len(text)) || now == id || len(now) != len(id) {
			t.Errorf("CID %s became %s (%v)", id, now, err)
		}
	}
}

// TestVMDKZeroExtent: it reads as zeros, is a hole, takes zeros and no data.
func TestVMDKZeroExtent(t *testing.T) {
	dir, content := t.TempDir(), noise(6*512)
	put(t, dir, "a", content[:1024])
	put(t, dir, "b", content[2048:])
	clear(content[1024:2048])
	path := writeVMDK(t, dir, "RW 2 FLAT \"a\" 0\nRW 2 ZERO\nRW 2 FLAT \"b\" 0")
	d := open(t, "vmdk://"+path, vddk.ReadWrite)
	got := make([]byte, len(content))
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("read: %v", err)
	}
	if e, err := d.NextData(1024); err != nil || e.Off != 2048 {
		t.Errorf("map: %v, %v", e, err)
	}
	if n, err := d.WriteAt([]byte("data"), 1022); n != 0 || !errors.Is(err, vddk.ErrReadOnly) || !strings.Contains(err.Error(), "ZERO") {
		t.Errorf("data into a ZERO extent: %d, %v", n, err)
	}
	copy(content[1000:], make([]byte, 1100))
	if _, err := d.WriteAt(make([]byte, 1100), 1000); err != nil {
		t.Errorf("zeros over a ZERO extent: %v", err)
	}
	clear(content[500:2600])
	if err := d.Zero(cbt.Extent{Off: 500, Len: 2100}, cbt.Deallocate); err != nil {
		t.Errorf("zero: %v", err)
	}
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("read at the end: %v", err)
	}
}

func TestVMDKCreate(t *testing.T) {
	need(t, "qemu-img")
	opts := vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 5<<20 + 1}
	for query, want := range map[string]string{"": "monolithicFlat", "?createType=vmfs": "vmfs"} {
		dir := t.TempDir()
		uri := "vmdk://" + filepath.Join(dir, "new disk.vmdk") + query
		for range 2 { // the second time it is there
			d, err := vddk.Open(t.Context(), strings.ReplaceAll(uri, " ", "%20"), opts)
			if err != nil {
				t.Fatal(err)
			}
			if d.Size() != 5<<20+512 || d.Describe().Detail != "type "+want+", 1 extent, adapter lsilogic" {
				t.Errorf("got %d bytes, %s", d.Size(), d.Describe().Detail)
			}
			d.Close()
		}
		if out := run(t, "qemu-img", "info", filepath.Join(dir, "new disk.vmdk")); !strings.Contains(out, "file format: vmdk") || !strings.Contains(out, "create type: "+want) {
			t.Errorf("qemu-img info: %s", out)
		}
		if used := blocks(t, filepath.Join(dir, "new disk-flat.vmdk")); used > 8192 {
			t.Errorf("a new disk takes %d bytes", used)
		}
		wrong := opts
		wrong.CreateSize = 1 << 20
		if _, err := vddk.Open(t.Context(), strings.ReplaceAll(uri, " ", "%20"), wrong); err == nil || !strings.Contains(err.Error(), "5243392") {
			t.Errorf("create over a disk of another size: %v", err)
		}
	}
}

// TestVMDKCreateCut: a creation that was cut is taken up; a flat file with data
// is not.
func TestVMDKCreateCut(t *testing.T) {
	opts := vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 1 << 20}
	dir := t.TempDir()
	uri := "vmdk://" + filepath.Join(dir, "x.vmdk")
	put(t, dir, "x.vmdk", nil)
	put(t, dir, "x-flat.vmdk", noise(1<<20))
	if _, err := vddk.Open(t.Context(), uri, opts); !errors.Is(err, syscall.EEXIST) || !strings.Contains(err.Error(), "x-flat.vmdk") {
		t.Errorf("flat file with data: %v", err)
	}
	for _, flat := range []func() error{
		func() error { return os.Remove(filepath.Join(dir, "x-flat.vmdk")) },
		func() error { put(t, dir, "x-flat.vmdk", nil); return nil },
		func() error { return os.Truncate(filepath.Join(dir, "x-flat.vmdk"), 1<<20) },
	} {
		put(t, dir, "x.vmdk", nil)
		if err := flat(); err != nil {
			t.Fatal(err)
		}
		d, err := vddk.Open(t.Context(), uri, opts)
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
	}
	sub := t.TempDir() // nothing of a refused creation stays, and nothing of others goes
	put(t, sub, "z-flat.vmdk", noise(1<<20))
	_, err := vddk.Open(t.Context(), "vmdk://"+filepath.Join(sub, "z.vmdk"), opts)
	if left, _ := filepath.Glob(sub + "/*"); err == nil || strings.Count(err.Error(), "exists") != 1 || len(left) != 1 {
		t.Errorf("refused creation: %v; left: %q", err, left)
	}
	put(t, sub, "w.vmdk.lck", nil) // a host has the disk: found when both files are made
	_, err = vddk.Open(t.Context(), "vmdk://"+filepath.Join(sub, "w.vmdk"), opts)
	if left, _ := filepath.Glob(sub + "/w*"); err == nil || len(left) != 1 {
		t.Errorf("creation of a disk that a host has: %v; left: %q", err, left)
	}
	put(t, dir, "y.vmdk", nil)
	if _, err := vddk.Open(t.Context(), "vmdk://"+filepath.Join(dir, "y.vmdk"), vddk.Options{}); !errors.Is(err, vddk.ErrFormat) || !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty descriptor: %v", err)
	}
}

func TestVMDKNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("SKIPPED: the race detector makes sync.Pool drop buffers")
	}
	d := open(t, "vmdk://"+split(t, t.TempDir(), noise(5<<20)), vddk.ReadWrite)
	p := aligned(make([]byte, 1<<20))
	for name, run := range map[string]func() error{
		"ReadAt":   func() error { _, err := d.ReadAt(p, 5); return err },
		"WriteAt":  func() error { _, err := d.WriteAt(p, 1<<20); return err },
		"ReadCold": func() error { _, err := d.ReadCold(p, 1<<20); return err },
		"Zero":     func() error { return d.Zero(cbt.Extent{Off: 100, Len: 2 << 20}, cbt.Deallocate) },
		"NextData": func() error { _, err := d.NextData(0); return err },
	} {
		var failed error
		if got := leastAllocs(20, func() { failed = errors.Join(failed, run()) }); got != 0 || failed != nil {
			t.Errorf("%s: %v allocations, %v", name, got, failed)
		}
	}
}
