package home

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
)

// aviary are secrets that may be in files of their own and nowhere else.
type aviary struct {
	t     *testing.T
	forms map[string][][]byte // by the name of the secret: how it may be written
	own   map[string]bool     // files that have one
	mu    sync.Mutex
	seen  map[string]string // by content: where it is from; of processes, logs and answers
}

func newAviary(t *testing.T) *aviary {
	return &aviary{t: t, forms: map[string][][]byte{}, own: map[string]bool{}, seen: map[string]string{}}
}

// text is a secret that people write, and the files that have it.
func (a *aviary) text(name, secret string, files ...string) {
	a.t.Helper()
	if len(secret) < 16 {
		a.t.Fatalf("the secret %s is %d bytes long, which may be anywhere", name, len(secret))
	}
	quoted, err := json.Marshal(secret)
	must(a.t, err)
	var plainJSON, escaped bytes.Buffer
	e := json.NewEncoder(&plainJSON)
	e.SetEscapeHTML(false)
	must(a.t, e.Encode(secret))
	must(a.t, xml.EscapeText(&escaped, []byte(secret)))
	for _, form := range []string{
		secret, string(quoted[1 : len(quoted)-1]), strings.Trim(plainJSON.String(), "\"\n"), strings.Trim(strconv.Quote(secret), `"`), escaped.String(),
		url.QueryEscape(secret), url.PathEscape(secret), url.UserPassword("", secret).String()[1:],
	} {
		a.forms[name] = append(a.forms[name], []byte(form))
	}
	for _, piece := range strings.FieldsFunc(secret, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if len(piece) >= 16 { // a parser may show a part of what it cannot read
			a.forms[name] = append(a.forms[name], []byte(piece))
		}
	}
	a.bytes(name, []byte(secret), files...)
}

// bytes is a secret of any bytes.
func (a *aviary) bytes(name string, secret []byte, files ...string) {
	list := append(a.forms[name], secret, []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret))))
	for before := range 3 { // base64 is another with each number of bytes before it
		for _, code := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := code.EncodeToString(append(make([]byte, before), secret...))
			list = append(list, []byte(text[(before*8+5)/6:(before+len(secret))*8/6]))
		}
	}
	slices.SortFunc(list, bytes.Compare)
	a.forms[name] = slices.CompactFunc(list, bytes.Equal)
	for _, f := range files {
		a.own[f] = true
	}
}

// key is a private key: PEM breaks its lines, so each half counts.
func (a *aviary) key(name string, secret []byte, files ...string) {
	a.bytes(name+", first half", secret[:len(secret)/2], files...)
	a.bytes(name+", second half", secret[len(secret)/2:], files...)
}

// see keeps what was to be seen somewhere.
func (a *aviary) see(where, what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.seen[what]; !ok {
		a.seen[what] = where
	}
}

// watch sees arguments and environment of every process below this one until stop
// is closed.
func (a *aviary) watch(stop chan struct{}) {
	for {
		a.processes()
		select {
		case <-stop:
			return
		case <-time.After(10 * time.Millisecond): // how often it looks
		}
	}
}

func (a *aviary) processes() {
	parents := map[string]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 {
			parents[filepath.Base(filepath.Dir(f))] = fields[1]
		}
	}
	self := strconv.Itoa(os.Getpid())
	for pid := range parents {
		above := parents[pid]
		for above != self && above != "" {
			above = parents[above]
		}
		if above == "" {
			continue
		}
		for _, what := range []string{"cmdline", "environ"} {
			if text, err := os.ReadFile("/proc/" + pid + "/" + what); err == nil {
				a.see("the "+what+" of process "+pid, string(text))
			}
		}
	}
}

// found are the secrets in b, but for those that own it.
func (a *aviary) found(where string, b []byte) {
	for _, name := range slices.Sorted(maps.Keys(a.forms)) {
		for _, form := range a.forms[name] {
			if i := bytes.Index(b, form); i >= 0 {
				a.t.Errorf("%s is in %s at byte %d: %q", name, where, i, b[max(0, i-60):min(len(b), i+len(form)+20)])
				break
			}
		}
	}
}

// search looks through all that was seen, and all files below dirs.
func (a *aviary) search(dirs ...string) {
	a.t.Helper()
	for what, where := range a.seen {
		a.found(where, []byte(what))
	}
	files, size := 0, 0
	for _, dir := range dirs {
		must(a.t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || a.own[path] {
				return err
			}
			b, err := os.ReadFile(path)
			a.found(path, b)
			files, size = files+1, size+len(b)
			return err
		}))
	}
	processes := 0
	for _, where := range a.seen {
		if strings.Contains(where, "of process") {
			processes++
		}
	}
	a.t.Logf("%d secrets, %d texts, %d of them of processes, %d files of %d bytes", len(a.forms), len(a.seen), processes, files, size)
	if len(a.forms) < 10 || processes < 4 || files < 20 {
		a.t.Error("that is too little to mean anything")
	}
}

// TestAviary: a secret is found however it is written.
func TestAviary(t *testing.T) {
	t.Parallel()
	const secret = `Pass/+ "&%<word with more`
	a := newAviary(t)
	a.text("p", secret)
	for _, text := range []string{
		secret, fmt.Sprintf("%q", secret), hex.EncodeToString([]byte(secret)), "x" + url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte("user:" + secret + "!")),
		base64.URLEncoding.EncodeToString([]byte("u:" + secret)),
	} {
		found := false
		for _, form := range a.forms["p"] {
			found = found || bytes.Contains([]byte(text), form)
		}
		if !found {
			t.Errorf("it is not found in %q", text)
		}
	}
}
