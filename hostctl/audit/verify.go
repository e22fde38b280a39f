package audit

import (
	"bufio"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Check says what Verify compares a log with.
type Check struct {
	// Trusted reports whether a public key is the site's; nil trusts every key,
	// and then a log that somebody has written anew is good.
	Trusted func(ed25519.PublicKey) bool
	// Heads are hashes that were kept elsewhere: all of them have to be in the log.
	Heads []Hash
	// Each gets every record as it is read; may be nil.
	Each func(Record)
}

// Result is what Verify found.
type Result struct {
	Records  uint64
	First    uint64    // number of the first record; 1 unless older files were taken away
	Last     uint64    // of the last
	Head     Hash      // of the last
	Signed   uint64    // the last number that a good signature covers
	Problems []Problem // empty: nobody has changed the log
	Notes    []Problem // what a crash left
}

// Problem is one place where the log is not as it was written.
type Problem struct {
	Place string // FILE:LINE, or the file
	Text  string
}

// String is both.
func (p Problem) String() string { return p.Place + ": " + p.Text }

// maxProblems bounds what is told of a log that is somebody else's altogether.
const maxProblems = 100

// verifier walks a log.
type verifier struct {
	Check
	res    Result
	last   Record
	any    bool
	hashes map[Hash]bool // of Heads: found
	whole  bool          // a directory: all there is
	kept   *head
	// keptBad: there is one that cannot be read. keptOK: its record is there.
	keptBad, keptOK bool
}

// Verify checks the log at path, a directory or one of its files. It needs no
// lock and changes nothing; a record that is being appended may look torn. The
// error says that the log cannot be read.
func Verify(path string, c Check) (Result, error) {
	v := &verifier{Check: c, hashes: map[Hash]bool{}}
	for _, h := range c.Heads {
		v.hashes[h] = false
	}
	list := []string{path}
	st, err := os.Stat(path)
	if err != nil {
		return v.res, fmt.Errorf("audit: %w", err)
	}
	if st.IsDir() {
		v.whole = true
		names, err := files(path)
		if err != nil {
			return v.res, fmt.Errorf("audit: %w", err)
		}
		list = list[:0]
		for _, n := range names {
			list = append(list, filepath.Join(path, n))
		}
		if v.kept, err = readHead(path); err != nil {
			v.problem(filepath.Join(path, headFile), "%v", err)
			v.keptBad = true
		}
	}
	for i, name := range list {
		if err := v.file(name, i == len(list)-1); err != nil {
			return v.res, fmt.Errorf("audit: %w", err)
		}
	}
	v.end(path)
	return v.res, nil
}

func (v *verifier) problem(place, format string, args ...any) {
	if len(v.res.Problems) < maxProblems {
		v.res.Problems = append(v.res.Problems, Problem{place, fmt.Sprintf(format, args...)})
	}
}

func (v *verifier) file(path string, newest bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, maxLine)
	for n := 1; ; n++ {
		b, err := r.ReadSlice('\n')
		place := fmt.Sprintf("%s:%d", path, n)
		switch {
		case err == io.EOF && len(b) == 0:
			return nil
		case err == io.EOF && newest:
			v.res.Notes = append(v.res.Notes, Problem{place, "the line is not finished: it is being written, or a crash has cut it; it was not acknowledged"})
			return nil
		case err == io.EOF:
			v.problem(place, "the file ends within a line")
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			v.problem(place, "a line of more than %d bytes", maxLine)
			return nil
		case err != nil:
			return err
		}
		v.line(place, n == 1, b[:len(b)-1])
	}
}

// line checks one line against the one before; the first of a file has the
// number that the file is called by.
func (v *verifier) line(place string, first bool, b []byte) {
	r, err := parse(b)
	if err == errNoRecord {
		v.problem(place, "not a record")
		return
	}
	if err != nil {
		v.problem(place, "record %d: %v", r.Seq, err)
	}
	v.link(place, &r)
	if name := filepath.Base(strings.TrimSuffix(place, ":1")); first && isFile(name) && name != fileName(r.Seq) {
		v.problem(place, "the file begins with record %d, and its name says another: what came before is gone", r.Seq)
	}
	if _, ok := v.hashes[r.Hash]; ok && err == nil {
		v.hashes[r.Hash] = true
	}
	if v.kept != nil && r.Seq == v.kept.Seq && r.Hash == v.kept.Hash {
		v.keptOK = true
	}
	v.own(place, &r)
	if !v.any {
		v.res.First = r.Seq
	}
	v.any, v.last = true, r
	v.res.Records++
	if v.Each != nil {
		v.Each(r)
	}
}

// link checks number and chain.
func (v *verifier) link(place string, r *Record) {
	switch {
	case !v.any && r.Seq == 1 && r.Prev != Hash{}:
		v.problem(place, "record 1 follows another: it is of another log")
	case !v.any && r.Seq != 1 && v.whole:
		v.res.Notes = append(v.res.Notes, Problem{place, fmt.Sprintf("the log begins with record %d: older files are not here", r.Seq)})
	case !v.any:
	case r.Seq <= v.last.Seq:
		v.problem(place, "record %d comes after record %d: they were put in another order, or one is there twice", r.Seq, v.last.Seq)
	case r.Seq != v.last.Seq+1:
		v.problem(place, "record %d comes after record %d: those between them are gone", r.Seq, v.last.Seq)
	case r.Prev != v.last.Hash:
		v.problem(place, "record %d does not follow the one before it, which was changed, exchanged, or is of another log", r.Seq)
	}
}

// own checks the records of the log itself.
func (v *verifier) own(place string, r *Record) {
	switch r.Action {
	case actionHead:
		h := headOf(r)
		if err := h.check(v.Trusted); err != nil {
			v.problem(place, "record %d, a signed head: %v", r.Seq, err)
			return
		}
		if len(v.res.Problems) == 0 {
			v.res.Signed = h.Seq
		}
		return
	case actionTorn:
		v.res.Notes = append(v.res.Notes, Problem{place, fmt.Sprintf("a crash cut a record; what was there of it is in %q", r.Object)})
	case actionCut:
		what := fmt.Sprintf("record %q with the hash %q", r.Details["seq"], r.Details["hash"])
		if r.Details["file"] != "" {
			what = fmt.Sprintf("the file %q", r.Details["file"])
		}
		v.problem(place, "here the log was found cut, or exchanged: it had %s", what)
	}
	if r.Seq%signEvery == 1 {
		v.problem(place, "record %d has to be a signed head and is not", r.Seq)
	}
}

// end checks what the log should have had.
func (v *verifier) end(path string) {
	v.res.Last, v.res.Head = v.last.Seq, v.last.Hash
	for _, h := range v.Heads {
		if !v.hashes[h] {
			v.problem(path, "no record has the hash %s: the log was cut after record %d, or is another one", h, v.last.Seq)
		}
	}
	place := filepath.Join(path, headFile)
	if v.kept == nil {
		if v.whole && v.res.Records == 0 {
			v.problem(path, "there is no record at all: none was made yet, or somebody has taken them away")
		}
		if v.whole && !v.keptBad && v.res.Records > 1 {
			v.problem(place, "it is gone: whether the end of the log was cut off after record %d cannot be told", v.last.Seq)
		}
		return
	}
	if err := v.kept.check(v.Trusted); err != nil {
		v.problem(place, "%v", err)
	} else if !v.keptOK {
		v.problem(place, "it signs record %d with the hash %s, which is not in the log: the end was cut off after record %d, or written anew", v.kept.Seq, v.kept.Hash, v.last.Seq)
	}
}
