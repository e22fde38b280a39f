package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// qcowPair is a qcow2 image with the dirty bitmap b0, and another as the first
// was when b0 began, with a fresh bitmap t0.
type qcowPair struct {
	dir, a, b string
	size      int64
	marked    cbt.Map // grains that b0 marks
	differ    cbt.Map // grains in which the two differ
}

func newQcowPair(t *testing.T) *qcowPair {
	t.Helper()
	nbdtest.Need(t, "qemu-img")
	dir := t.TempDir()
	p := &qcowPair{dir: dir, a: filepath.Join(dir, "a.qcow2"), b: filepath.Join(dir, "b.qcow2"), size: 512 * mib}
	nbdtest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", p.a, fmt.Sprint(p.size))
	qemuIO(t, p.a, "write -P 1 0 64M", "write -P 7 100M 3M", "write -P 5 300M 10M")
	copyFile(t, p.b, p.a)
	nbdtest.Run(t, "qemu-img", "bitmap", "--add", "--enable", "-g", "65536", p.a, "b0")
	// The last one writes what is there already: marked, and not different.
	qemuIO(t, p.a, "write -P 9 10M 100k", "write -z 30M 1M", "discard 101M 64k", "write -P 3 200M 1M", "write -P 5 304M 2M")
	nbdtest.Run(t, "qemu-img", "bitmap", "--add", "--enable", "-g", "65536", p.b, "t0")
	for _, e := range []cbt.Extent{{Off: 10 * mib, Len: 100 << 10}, {Off: 30 * mib, Len: mib}, {Off: 101 * mib, Len: 64 << 10}, {Off: 200 * mib, Len: mib}, {Off: 304 * mib, Len: 2 * mib}} {
		p.marked.Add(e)
	}
	p.marked = p.marked.AlignGrains(p.size)
	p.differ = p.differing(t)
	if p.differ.Empty() || !p.differ.Subtract(p.marked).Empty() || p.marked.Subtract(p.differ).Empty() {
		t.Fatalf("differing %d bytes, marked %d: the test would show nothing", p.differ.Len(), p.marked.Len())
	}
	return p
}

// differing compares the images, by other programs and plain bytes.
func (p *qcowPair) differing(t *testing.T) (m cbt.Map) {
	t.Helper()
	var raw [2][]byte
	for i, image := range []string{p.a, p.b} {
		out := filepath.Join(p.dir, "raw")
		nbdtest.Run(t, "qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", image, out)
		b, err := os.ReadFile(out)
		if err != nil || int64(len(b)) != p.size {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		raw[i] = b
		_ = os.Remove(out) // it would be overwritten
	}
	for g := range cbt.Grains(p.size) {
		if e := cbt.Grain(g, p.size); !bytes.Equal(raw[0][e.Off:e.End()], raw[1][e.Off:e.End()]) {
			m.Add(e)
		}
	}
	return m
}

// serve starts qemu-nbd on an image; its trace tells every request.
func (p *qcowPair) serve(t *testing.T, image string, args ...string) *nbdtest.Server {
	t.Helper()
	return nbdtest.Unix(t, "qemu-nbd", append(append([]string{"-t", "-f", "qcow2", "-T", "enable=nbd_receive_request"}, args...), image)...)
}

func qemuIO(t *testing.T, image string, commands ...string) {
	t.Helper()
	var args []string
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	if out := nbdtest.Run(t, "qemu-io", append(args, image)...); strings.Contains(out, "failed") {
		t.Fatal(out)
	}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var nbdRequest = regexp.MustCompile(`type = 0x([0-9a-f]+), from = ([0-9]+), len = ([0-9]+)`)

// requests is what a server was asked for, by the type of the request.
func requests(t *testing.T, s *nbdtest.Server, types ...string) (m cbt.Map) {
	t.Helper()
	all := nbdRequest.FindAllStringSubmatch(s.Said(), -1)
	if len(all) == 0 {
		t.Fatalf("the server traced nothing: %q", s.Said())
	}
	for _, r := range all {
		off, err1 := strconv.ParseInt(r[2], 10, 64)
		n, err2 := strconv.ParseInt(r[3], 10, 64)
		if err1 != nil || err2 != nil {
			t.Fatal(r[0])
		}
		for _, want := range types {
			if r[1] == want {
				m.Add(cbt.Extent{Off: off, Len: n})
			}
		}
	}
	return m
}

const (
	nbdRead  = "0"
	nbdWrite = "1"
	nbdTrim  = "4"
	nbdZero  = "6"
)

// dirty is the bitmap of an image, as nbdinfo reads it.
func (p *qcowPair) dirty(t *testing.T, image, bitmap string) (m cbt.Map) {
	t.Helper()
	s := nbdtest.Unix(t, "qemu-nbd", "-r", "-t", "-f", "qcow2", "-B", bitmap, image)
	defer s.Stop()
	var list []struct {
		Offset, Length int64
		Type           int
	}
	if err := json.Unmarshal([]byte(nbdtest.Run(t, "nbdinfo", "--json", "--map=qemu:dirty-bitmap:"+bitmap, s.URI)), &list); err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Type == 1 {
			m.Add(cbt.Extent{Off: e.Offset, Len: e.Length})
		}
	}
	return m
}

// Between two qemu-nbd with a dirty bitmap as the hint: the source reads the
// marked grains and the sample, the target gets the grains that differ, and
// other programs say so: the traces of both servers, and a fresh bitmap of the
// target.
func TestCopyByDirtyBitmap(t *testing.T) {
	t.Parallel()
	for _, daemons := range []bool{false, true} {
		t.Run(fmt.Sprintf("daemons=%t", daemons), func(t *testing.T) {
			t.Parallel()
			p := newQcowPair(t)
			src := p.serve(t, p.a, "-r", "-B", "b0", "-A")
			dst := p.serve(t, p.b)
			from, to, how := src.URI, dst.URI, []string{"--cbt", "bitmap:b0", "--strict"}
			r := newRig(t)
			if daemons {
				r = newRig(t, "[[export]]\nname = \"vda\"\nuri = \""+src.URI+"\"\nrole = \"source\"\ncbt = \"bitmap:b0\"\npeers = [\"desk\"]\n", target("vdb", dst.URI))
				d := r.daemon(t, anyPort)
				defer d.stop(t)
				from, how[1] = d.uri("vda"), "export"
			}
			c := r.copy(t, from, to, how...).wait()
			sum := last(t, c.Out, "summary")
			if c.Code != 0 || sum.text("state") != "Verified" || sum.text("actual_tracking") != "hint" || sum["equal"] != false {
				t.Fatalf("exit code %d, summary %v\n%s", c.Code, sum, c.Stderr)
			}
			sampled := sum.bytes("sampled_grains")
			if sampled < 64 || sampled > 80 || sum.bytes("changed") != p.differ.Len() || sum.bytes("skipped") == 0 ||
				sum.bytes("compared")+sum.bytes("skipped") != p.size || sum.bytes("unchanged_grains") != (p.size-p.marked.Len())/cbt.GrainSize {
				t.Errorf("marked %d bytes, differing %d: summary %v", p.marked.Len(), p.differ.Len(), sum)
			}
			src.Stop()
			dst.Stop()
			read := requests(t, src, nbdRead)
			if extra := read.Subtract(p.marked); extra.Len() > sampled*cbt.GrainSize+4096 { // 4096: a look at the last byte
				t.Errorf("read %d bytes outside of the marked grains, sampled %d grains", extra.Len(), sampled)
			}
			var holes cbt.Map // written as zeros, or discarded: known without a read
			holes.Add(cbt.Extent{Off: 30 * mib, Len: mib})
			holes.Add(cbt.Extent{Off: 101 * mib, Len: 64 << 10})
			if missed := p.differ.Subtract(read).Subtract(holes); !missed.Empty() {
				t.Errorf("%d bytes of what differs were not read", missed.Len())
			}
			if got := requests(t, dst, nbdWrite, nbdTrim, nbdZero); !got.Equal(p.differ) {
				t.Errorf("wrote %d bytes, %d differed", got.Len(), p.differ.Len())
			}
			if got := p.dirty(t, p.b, "t0"); !got.Equal(p.differ) {
				t.Errorf("the target's own bitmap marks %d bytes, %d differed", got.Len(), p.differ.Len())
			}
			nbdtest.Run(t, "qemu-img", "compare", p.a, p.b)
		})
	}
}

// A writer that is killed leaves the bitmap inconsistent: its epoch is lost. The
// server does not offer it, and everything is compared.
func TestInconsistentBitmap(t *testing.T) {
	t.Parallel()
	p := newQcowPair(t)
	writer := p.serve(t, p.a)
	nbdtest.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 8 400M 1M", writer.URI)
	writer.Kill()
	if out, err := exec.Command("qemu-nbd", "-t", "-r", "-k", filepath.Join(p.dir, "s"), "-f", "qcow2", "-B", "b0", p.a).CombinedOutput(); err == nil || !strings.Contains(string(out), "inconsistent") {
		t.Fatalf("a bitmap in use is taken for a good one: %v\n%s", err, out)
	}
	src, dst := p.serve(t, p.a, "-r"), p.serve(t, p.b)
	r := newRig(t)
	wantEnd(t, r.copy(t, src.URI, dst.URI, "--cbt", "bitmap:b0", "--strict"), 14, "b0", "inconsistent", "--remove")
	sum := wantVerified(t, r.copy(t, src.URI, dst.URI, "--cbt", "bitmap:b0"))
	if sum.text("actual_tracking") != "full" || sum.text("requested_tracking") != "bitmap:b0" || !strings.Contains(sum.text("tracking_reason"), "does not offer") {
		t.Errorf("summary %v", sum)
	}
	src.Stop()
	dst.Stop()
	nbdtest.Run(t, "qemu-img", "compare", p.a, p.b)
}

// A bitmap that lost changes is caught by the sample, and the copy is right.
func TestLyingBitmap(t *testing.T) {
	t.Parallel()
	p := newQcowPair(t)
	qemuIO(t, p.b, "write -P 66 400M 16M") // the target is not what the bitmap was begun on
	src, dst := p.serve(t, p.a, "-r", "-B", "b0"), p.serve(t, p.b)
	c := newRig(t).copy(t, src.URI, dst.URI, "--cbt", "bitmap:b0")
	sum := wantVerified(t, c)
	if sum.text("actual_tracking") != "full" || !strings.Contains(sum.text("tracking_reason"), "distrusted") || !strings.Contains(c.Stdout(), `"message_type":"event"`) {
		t.Errorf("summary %v", sum)
	}
	src.Stop()
	dst.Stop()
	nbdtest.Run(t, "qemu-img", "compare", p.a, p.b)
}

// Through nbdkit's filters: errors that pass are survived, on either side, and
// those that stay are named, with the code that says what to do.
func TestCopyThroughFilters(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		source, target []string // of nbdkit, before and after the file
		code           int
		words          []string
	}{
		"slow":                       {source: []string{"--filter=delay", "rdelay=5ms"}, target: []string{"--filter=delay", "rdelay=2ms", "wdelay=20ms"}},
		"source short of memory":     {source: []string{"--filter=error", "error-pread=ENOMEM", "error-pread-rate=5%"}},
		"source with bad moments":    {source: []string{"--filter=error", "error-pread=EIO", "error-pread-rate=1%"}},
		"target short of memory":     {target: []string{"--filter=error", "error=ENOMEM", "error-rate=3%"}},
		"target shuts down at times": {target: []string{"--filter=error", "error-pwrite=ESHUTDOWN", "error-pwrite-rate=5%"}},
		"target is full":             {target: []string{"--filter=error", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"}, code: 3, words: []string{"no space left", "free space"}},
		"target fails":               {target: []string{"--filter=error", "error-pwrite=EIO", "error-pwrite-rate=100%"}, code: 1, words: []string{"target disk: write", "input/output error"}},
		"target may not be written":  {target: []string{"--filter=error", "error-pwrite=EPERM", "error-pwrite-rate=100%"}, code: 1, words: []string{"target disk: write", "not permitted"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			images := newPair(t, t.TempDir(), 4, 9)
			src := nbdtest.Unix(t, "nbdkit", nbdkitFile(images.img[1], tt.source, "-r")...)
			dst := nbdtest.Unix(t, "nbdkit", nbdkitFile(images.img[0], tt.target)...)
			c := newRig(t).copy(t, src.URI, dst.URI)
			if tt.code != 0 {
				wantEnd(t, c, tt.code, tt.words...)
				return
			}
			wantVerified(t, c)
			src.Stop()
			dst.Stop()
			cmdtest.MustEqual(t, images.img[0], images.img[1])
		})
	}
}

// nbdkitFile is how nbdkit serves a file through filters.
func nbdkitFile(path string, filter []string, more ...string) []string {
	args := append([]string{"-f"}, more...)
	var params []string
	for _, a := range filter {
		if strings.HasPrefix(a, "--") {
			args = append(args, a)
		} else {
			params = append(params, a)
		}
	}
	return append(append(args, "file", path), params...)
}

// The checkwrite filter lets nothing pass but what is there already: a copy of
// an equal disk passes, because it writes nothing.
func TestCopyOfEqualWritesNothing(t *testing.T) {
	t.Parallel()
	images := newPair(t, t.TempDir(), 2, 9)
	copyFile(t, images.img[1], images.img[0])
	src := nbdtest.Unix(t, "nbdkit", nbdkitFile(images.img[1], nil, "-r")...)
	dst := nbdtest.Unix(t, "nbdkit", nbdkitFile(images.img[0], []string{"--filter=checkwrite"})...)
	if sum := wantVerified(t, newRig(t).copy(t, src.URI, dst.URI)); sum.bytes("sent") != 0 {
		t.Errorf("summary %v", sum)
	}
}
