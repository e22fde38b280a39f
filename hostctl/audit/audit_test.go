package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// key is a Signer from a seed.
type key byte

func (k key) private() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(k)}, 32))
}

func (k key) Public() ed25519.PublicKey { return k.private().Public().(ed25519.PublicKey) }

func (k key) Sign(domain string, m []byte) []byte {
	return ed25519.Sign(k.private(), append(append([]byte(domain), 0), m...))
}

func (k key) trusted(p ed25519.PublicKey) bool { return p.Equal(k.Public()) }

func open(t testing.TB, dir string, k key) *Log {
	t.Helper()
	l, err := Open(dir, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(t.Context(), Entry{Actor: "uid 0", Action: "peer.added", Object: fmt.Sprint("dr", i), Outcome: "ok", Details: map[string]string{"id": "X\n\"<"}}); err != nil {
			t.Fatal(err)
		}
	}
}

// made is a closed log of n records of ours and the heads.
func made(t testing.TB, n int) string {
	dir := t.TempDir()
	l := open(t, dir, 1)
	add(t, l, n)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func verify(t testing.TB, path string, c Check) Result {
	t.Helper()
	res, err := Verify(path, c)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

const first = "0000000000000001.jsonl"

func lines(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
}

func store(t testing.TB, path string, lines []string) {
	t.Helper()
	text := strings.Join(lines, "")
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestChain(t *testing.T) {
	dir := made(t, 200)
	var got []Record
	res := verify(t, dir, Check{Trusted: key(1).trusted, Each: func(r Record) { got = append(got, r) }})
	if len(res.Problems)+len(res.Notes) > 0 || res.First != 1 || res.Records != res.Last || res.Signed != res.Last-1 {
		t.Fatalf("%+v", res)
	}
	n := 0
	for i, r := range got {
		if r.Seq != uint64(i+1) || r.Seq%signEvery == 1 && r.Action != actionHead {
			t.Fatalf("record %d: %+v", i+1, r)
		}
		if r.Action == "peer.added" {
			if r.Object != fmt.Sprint("dr", n) || r.Details["id"] != "X\n\"<" || r.Actor != "uid 0" {
				t.Fatalf("%+v", r)
			}
			n++
		}
	}
	if n != 200 {
		t.Fatalf("%d records of ours", n)
	}
	for _, name := range []string{first, headFile, "lock"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if res := verify(t, dir, Check{Trusted: key(2).trusted}); len(res.Problems) == 0 {
		t.Error("another key is believed")
	}
}

// TestTampering has every kind of change, each found at its line.
func TestTampering(t *testing.T) {
	dir := made(t, 130)
	path := filepath.Join(dir, first)
	good := lines(t, path)
	other := lines(t, filepath.Join(made(t, 130), first))
	clean := verify(t, dir, Check{})
	rehash := func(line string, edit func(string) string) string {
		body := edit(line[:len(line)-tailLen-1])
		return body + hashTail + sum([]byte(body)).String() + "\"}\n"
	}
	for _, c := range []struct {
		name string
		edit func(l []string) []string
		line int // of the first problem; 0: the head file
		says string
	}{
		{"edited", func(l []string) []string { l[9] = strings.Replace(l[9], "dr", "xx", 1); return l }, 10, "was changed"},
		{"a space", func(l []string) []string { l[9] = strings.Replace(l[9], `,"actor"`, `, "actor"`, 1); return l }, 10, "was changed"},
		{"edited with a hash", func(l []string) []string {
			l[9] = rehash(l[9], func(b string) string { return strings.Replace(b, "dr", "xx", 1) })
			return l
		}, 11, "does not follow"},
		{"deleted", func(l []string) []string { return append(l[:9:9], l[10:]...) }, 10, "are gone"},
		{"the first deleted", func(l []string) []string { return l[1:] }, 1, "begins with record 2, and its name says another"},
		{"the first hundred deleted", func(l []string) []string { return l[100:] }, 1, "begins with record 101"},
		{"twice", func(l []string) []string { return append(l[:10:10], l[9:]...) }, 11, "another order"},
		{"exchanged", func(l []string) []string { l[9], l[10] = l[10], l[9]; return l }, 10, "are gone"},
		{"spliced", func(l []string) []string { return append(l[:9:9], other[9:]...) }, 10, "does not follow"},
		{"another log", func([]string) []string { return other }, 0, "not in the log"},
		{"cut", func(l []string) []string { return l[:100] }, 0, "not in the log"},
		{"the last cut", func(l []string) []string { return l[:len(l)-1] }, 0, "not in the log"},
		{"text between", func(l []string) []string { return append(append(l[:9:9], "hello\n"), l[9:]...) }, 10, "not a record"},
		{"a head taken out and all after it written anew", func(l []string) []string {
			var prev Hash
			if err := prev.UnmarshalText([]byte(l[63][len(l[63])-66-1 : len(l[63])-3])); err != nil {
				t.Fatal(err)
			}
			b, _, err := line(65, clean0, Entry{Actor: "x", Action: "y"}, prev)
			if err != nil {
				t.Fatal(err)
			}
			return append(l[:64:64], string(b))
		}, 65, "has to be a signed head"},
		{"a head of another key", func(l []string) []string {
			var prev Hash
			if err := prev.UnmarshalText([]byte(l[63][len(l[63])-66-1 : len(l[63])-3])); err != nil {
				t.Fatal(err)
			}
			h := sign(key(2), 64, prev)
			b, _, err := line(65, clean0, h.entry(), prev)
			if err != nil {
				t.Fatal(err)
			}
			return append(l[:64:64], string(b))
		}, 65, "not this site's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store(t, path, c.edit(append([]string(nil), good...)))
			res := verify(t, dir, Check{Trusted: key(1).trusted})
			want := path + fmt.Sprint(":", c.line)
			if c.line == 0 {
				want = filepath.Join(dir, headFile)
			}
			if len(res.Problems) == 0 || res.Problems[0].Place != want || !strings.Contains(res.Problems[0].Text, c.says) {
				t.Fatalf("got %v, want %s ... %s", res.Problems, want, c.says)
			}
		})
	}
	// Without the head file what was cut is found by a hash that was kept elsewhere.
	if err := os.Remove(filepath.Join(dir, headFile)); err != nil {
		t.Fatal(err)
	}
	store(t, path, good[:100])
	if res := verify(t, dir, Check{Trusted: key(1).trusted}); len(res.Problems) != 1 || !strings.Contains(res.Problems[0].Text, "it is gone") {
		t.Fatalf("%v", res.Problems)
	}
	if res := verify(t, dir, Check{Heads: []Hash{clean.Head}}); len(res.Problems) != 2 || !strings.Contains(res.Problems[0].Text, "cut after record 100") {
		t.Fatalf("%v", res.Problems)
	}
}

// clean0 is a time for records that are made by hand.
var clean0 = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, 1)
	l.limit = 4 << 10
	add(t, l, 100)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := files(dir)
	if err != nil || len(names) < 5 {
		t.Fatalf("%v, %v", names, err)
	}
	if res := verify(t, dir, Check{Trusted: key(1).trusted}); len(res.Problems)+len(res.Notes) > 0 || res.Records < 100 {
		t.Fatalf("%+v", res)
	}
	if err := os.Remove(filepath.Join(dir, names[2])); err != nil {
		t.Fatal(err)
	}
	res := verify(t, dir, Check{})
	if len(res.Problems) == 0 || res.Problems[0].Place != filepath.Join(dir, names[3])+":1" {
		t.Fatalf("%+v", res)
	}
}

// TestTorn cuts the last record at every byte, as a crash does, and goes on.
func TestTorn(t *testing.T) {
	whole := made(t, 3)
	b, err := os.ReadFile(filepath.Join(whole, first))
	if err != nil {
		t.Fatal(err)
	}
	all := lines(t, filepath.Join(whole, first))
	begin := len(b) - len(all[len(all)-1]) - 1
	r1, err := parse([]byte(strings.TrimSuffix(all[0], "\n")))
	if err != nil {
		t.Fatal(err)
	}
	head1 := sign(key(1), 1, r1.Hash) // all that is signed before the first minute is over
	for cut := begin; cut <= len(b); cut += 7 {
		for _, zeros := range []int{0, 100} {
			dir := t.TempDir()
			torn := append(bytes.Clone(b[:cut]), make([]byte, zeros)...)
			if err := os.WriteFile(filepath.Join(dir, first), torn, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := writeHead(dir, head1); err != nil {
				t.Fatal(err)
			}
			l := open(t, dir, 1)
			add(t, l, 2)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			res := verify(t, dir, Check{Trusted: key(1).trusted})
			if len(res.Problems) > 0 {
				t.Fatalf("cut at %d with %d zeros: %v", cut-begin, zeros, res.Problems)
			}
			want := 1
			if zeros == 0 && (cut == begin || cut == len(b)) {
				want = 0
			}
			if len(res.Notes) != want {
				t.Fatalf("cut at %d with %d zeros: notes %v", cut-begin, zeros, res.Notes)
			}
			kept, _ := filepath.Glob(filepath.Join(dir, "torn-*"))
			if len(kept) != want {
				t.Fatalf("kept aside: %v", kept)
			}
		}
	}
}

// TestCut is a log that has lost records which were signed.
func TestCut(t *testing.T) {
	dir := made(t, 10)
	path := filepath.Join(dir, first)
	store(t, path, lines(t, path)[:5])
	l := open(t, dir, 1)
	add(t, l, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	res := verify(t, dir, Check{Trusted: key(1).trusted})
	if len(res.Problems) != 1 || !strings.Contains(res.Problems[0].Text, `found cut, or exchanged: it had record "12"`) {
		t.Fatalf("%v", res.Problems)
	}
}

// TestTwoProcesses appends from this process, twice, and from another, at once.
func TestTwoProcesses(t *testing.T) {
	const each = 40
	if dir := os.Getenv("HAULBACK_AUDIT_TEST_DIR"); dir != "" {
		add(t, open(t, dir, 1), each)
		return
	}
	dir := t.TempDir()
	var wg sync.WaitGroup
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTwoProcesses$")
	cmd.Env = append(os.Environ(), "HAULBACK_AUDIT_TEST_DIR="+dir)
	wg.Go(func() {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	for range 2 {
		l := open(t, dir, 1)
		l.limit = 8 << 10
		wg.Go(func() { add(t, l, each) })
	}
	wg.Wait()
	ours := 0
	res := verify(t, dir, Check{Trusted: key(1).trusted, Each: func(r Record) {
		if r.Action == "peer.added" {
			ours++
		}
	}})
	if len(res.Problems)+len(res.Notes) > 0 || ours != 3*each {
		t.Fatalf("%d records: %+v", ours, res)
	}
}

// TestFull is a disk without space: the record is refused whole, and the log
// goes on when there is space again.
func TestFull(t *testing.T) {
	if os.Getenv("HAULBACK_AUDIT_TEST_FULL") == "" { // the limit is the process's
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFull$", "-test.v")
		cmd.Env = append(os.Environ(), "HAULBACK_AUDIT_TEST_FULL=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS")) {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	dir := t.TempDir()
	l := open(t, dir, 1)
	add(t, l, 2)
	st, err := os.Stat(filepath.Join(dir, first))
	if err != nil {
		t.Fatal(err)
	}
	set := func(n uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: unix.RLIM_INFINITY}); err != nil {
			t.Fatal(err)
		}
	}
	set(uint64(st.Size()) + 100) // a part of the next record
	err = l.Append(t.Context(), Entry{Action: "peer.added"})
	set(unix.RLIM_INFINITY)
	if !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("got %v", err)
	}
	if now, err := os.Stat(filepath.Join(dir, first)); err != nil || now.Size() != st.Size() {
		t.Fatalf("%d bytes, before %d: %v", now.Size(), st.Size(), err)
	}
	add(t, l, 1)
	if res := verify(t, dir, Check{Trusted: key(1).trusted}); len(res.Problems)+len(res.Notes) > 0 || res.Records != 4 {
		t.Fatalf("%+v", res)
	}
}

func TestClosed(t *testing.T) {
	l := open(t, t.TempDir(), 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Append(ctx, Entry{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	if err := l.Append(t.Context(), Entry{}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	b, _, err := line(1, clean0, Entry{Actor: "a", Details: map[string]string{"k": "v"}}, Hash{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-1])
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := parse(in)
		if err == nil && r.Hash != sum(in[:len(in)-tailLen]) {
			t.Fatalf("%+v", r)
		}
		dir := t.TempDir() // whatever is there, the log goes on, or says why not
		if os.WriteFile(filepath.Join(dir, first), in, 0o600) == nil {
			if l, err := Open(dir, key(1)); err == nil {
				err := l.Append(t.Context(), Entry{})
				if err == nil {
					_, err = Verify(dir, Check{})
				}
				if err != nil && !strings.Contains(err.Error(), "audit") {
					t.Fatal(err)
				}
				l.Close()
			}
		}
	})
}
