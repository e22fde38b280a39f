package micro

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/haulback/haulback/cbt"
)

// contentLen is how much there is of each content: more than a core's cache, so
// that grains come from memory as they do on the way.
const contentLen = 32 << 20

// kinds are the contents, by name.
var kinds = []struct {
	name string
	make func(testing.TB) []byte
}{
	{"files", files},
	{"random", random},
}

var contents = struct {
	mu sync.Mutex
	by map[string][]byte
}{by: map[string][]byte{}}

// content is made once for each name. Nobody writes to it.
func content(b testing.TB, name string) []byte {
	contents.mu.Lock()
	defer contents.mu.Unlock()
	if contents.by[name] == nil {
		for _, k := range kinds {
			if k.name == name {
				contents.by[name] = k.make(b)
			}
		}
	}
	return contents.by[name]
}

// files are source texts and programs of the Go distribution, half of each.
func files(b testing.TB) []byte {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Skip("no Go distribution to take files from: ", err)
	}
	root := strings.TrimSpace(string(out))
	p := gather(root, "src", contentLen/2, func(name string) bool { return strings.HasSuffix(name, ".go") })
	p = append(p, gather(root, "bin", contentLen/2, func(string) bool { return true })...)
	if len(p) < contentLen*3/4 {
		b.Skipf("%s has only %d bytes of sources and programs", root, len(p))
	}
	return p[:len(p)&^(cbt.BatchSize-1)]
}

// gather joins the files below root/dir, in lexical order, up to n bytes.
func gather(root, dir string, n int, want func(string) bool) (all []byte) {
	_ = filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !want(d.Name()) {
			return nil
		}
		p, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		if all = append(all, p...); len(all) >= n {
			all = all[:n]
			return fs.SkipAll
		}
		return nil
	}) // what cannot be read is left out
	return all
}

func random(testing.TB) []byte {
	p := make([]byte, contentLen)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

// piecesOf yields p in pieces of size bytes, over and over.
func piecesOf(p []byte, size int) func() []byte {
	at := 0
	return func() []byte {
		if at+size > len(p) {
			at = 0
		}
		piece := p[at : at+size]
		at += size
		return piece
	}
}
