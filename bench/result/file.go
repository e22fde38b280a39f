package result

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Results is a whole file of results.
type Results struct {
	Setup   Setup
	Peers   []Peer
	LeftOut []LeftOut
	Images  []Image
	Runs    []Run
}

// Add takes one line in.
func (r *Results) Add(l Line) {
	switch {
	case l.Setup != nil:
		r.Setup = *l.Setup
	case l.Peer != nil:
		r.Peers = append(r.Peers, *l.Peer)
	case l.LeftOut != nil:
		r.LeftOut = append(r.LeftOut, *l.LeftOut)
	case l.Image != nil:
		r.Images = append(r.Images, *l.Image)
	case l.Run != nil:
		r.Runs = append(r.Runs, *l.Run)
	}
}

// At are the results of one place.
func (r *Results) At(p Place) *Results {
	some := &Results{Setup: r.Setup, Peers: r.Peers}
	for _, l := range r.LeftOut {
		if l.Place == p {
			some.LeftOut = append(some.LeftOut, l)
		}
	}
	for _, i := range r.Images {
		if i.Place == p {
			some.Images = append(some.Images, i)
		}
	}
	for _, run := range r.Runs {
		if run.Place == p {
			some.Runs = append(some.Runs, run)
		}
	}
	return some
}

// maxLine bounds a line of a file: a run is about 500 bytes, a peer 2 KiB.
const maxLine = 1 << 20

// Read reads a file of results. A last line without its end, which an
// interrupted benchmark leaves, is left out; any other bad line is an error
// that names its number.
func Read(in io.Reader) (*Results, error) {
	b := bufio.NewReaderSize(in, 64<<10)
	r := new(Results)
	for n := 1; ; n++ {
		text, err := b.ReadSlice('\n')
		long := append([]byte(nil), text...)
		for err == bufio.ErrBufferFull && len(long) <= maxLine {
			text, err = b.ReadSlice('\n')
			long = append(long, text...)
		}
		if err == io.EOF {
			return r, nil
		}
		if err != nil {
			return nil, fmt.Errorf("results: line %d: %w", n, err)
		}
		var l Line
		if err := json.Unmarshal(long, &l); err != nil {
			return nil, fmt.Errorf("results: line %d: %w", n, err)
		}
		r.Add(l)
	}
}

// Writer appends lines to a file of results, each in one write. It may be used
// by several goroutines.
type Writer struct {
	mu  sync.Mutex
	out io.Writer
}

// NewWriter writes lines to out.
func NewWriter(out io.Writer) *Writer { return &Writer{out: out} }

// Write appends one line.
func (w *Writer) Write(l Line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.out.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}
