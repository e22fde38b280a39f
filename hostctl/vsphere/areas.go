package vsphere

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/haulback/haulback/cbt"
)

const (
	// fullPage is how many areas an answer has at most: one that has so many may
	// have been cut, and what its length claims beyond its last area is not known
	// (facts/reliability.md, B3; two products shipped that corruption).
	fullPage = 2000
	// maxAreas bounds the areas of one disk: 2 Mi are 128 GiB of 64 KiB blocks,
	// every second one changed. Above it a full comparison is cheaper.
	maxAreas = 2 << 20
	// maxPages bounds the answers of one disk.
	maxPages = 1 << 16
)

// page is one answer to a question about changed areas.
type page struct {
	start, length int64
	areas         []cbt.Extent
}

// untrue is an answer that cannot be believed. It is a reason, not a failure.
type untrue struct{ why string }

// Error implements error.
func (e *untrue) Error() string { return e.why }

func distrust(format string, args ...any) error {
	return &untrue{fmt.Sprintf(format, args...)}
}

// collect asks for the changes of a disk of size bytes page by page, and answers
// sorted areas that do not touch. The remark says what was put in order.
func collect(size int64, ask func(start int64) (page, error)) (areas []cbt.Extent, remark string, err error) {
	var t tidier
	if size <= 0 {
		return nil, "", distrust("the disk has %d bytes", size)
	}
	pages := 0
	// Asking at the end of the disk is an error on every host.
	for start := int64(0); start < size; pages++ {
		if pages == maxPages {
			return nil, "", distrust("the host gave %d answers and was not at the end of the disk", pages)
		}
		p, err := ask(start)
		if err != nil {
			return nil, "", err
		}
		if err := t.add(p, size); err != nil {
			return nil, "", err
		}
		next, err := p.next(start, size)
		if err != nil {
			return nil, "", err
		}
		start = next
	}
	return t.result(), t.remark(), nil
}

// next is where the question after p has to begin.
func (p *page) next(start, size int64) (int64, error) {
	if p.start > start || p.start < 0 || p.length < 0 {
		return 0, distrust("asked from byte %d, the host answered from %d for %d bytes", start, p.start, p.length)
	}
	next := size
	if p.length < size-p.start {
		next = p.start + p.length
	}
	if len(p.areas) >= fullPage {
		last := p.areas[len(p.areas)-1]
		next = min(next, last.Off+last.Len)
	}
	if next <= start {
		return 0, distrust("asked from byte %d, the host answered nothing: %d bytes from %d, %d areas", start, p.length, p.start, len(p.areas))
	}
	return next, nil
}

// tidier puts areas in order.
type tidier struct {
	areas                   []cbt.Extent
	empty, clamped, jumbled int
	top                     int64 // the highest offset so far
}

// add takes the areas of a page. One that begins outside the disk voids the
// answer (B4): it is of another disk.
func (t *tidier) add(p page, size int64) error {
	for _, e := range p.areas {
		switch {
		case e.Off < 0 || e.Len < 0 || e.Off >= size:
			return distrust("the host names %d bytes at %d, which is outside of the disk of %d bytes", e.Len, e.Off, size)
		case e.Len == 0:
			t.empty++
			continue
		case e.Len > size-e.Off:
			t.clamped++
			e.Len = size - e.Off
		}
		if e.Off < t.top {
			t.jumbled++
		}
		t.top = max(t.top, e.Off)
		t.areas = append(t.areas, e)
	}
	if len(t.areas) > maxAreas {
		t.areas = merge(t.areas)
	}
	if len(t.areas) > maxAreas {
		return distrust("the host names more than %d areas: comparing all of the disk is cheaper", maxAreas)
	}
	return nil
}

func (t *tidier) result() []cbt.Extent { return merge(t.areas) }

func (t *tidier) remark() string {
	var said []string
	for _, s := range []struct {
		n    int
		what string
	}{{t.empty, "were empty"}, {t.clamped, "reached over the end of the disk"}, {t.jumbled, "were out of order or named twice"}} {
		if s.n > 0 {
			said = append(said, fmt.Sprintf("%d areas %s", s.n, s.what))
		}
	}
	return strings.Join(said, ", ")
}

// merge sorts areas and joins those that overlap or touch. It works in place.
func merge(areas []cbt.Extent) []cbt.Extent {
	slices.SortFunc(areas, func(a, b cbt.Extent) int { return cmp.Compare(a.Off, b.Off) })
	n := 0
	for _, e := range areas {
		if n > 0 && e.Off <= areas[n-1].Off+areas[n-1].Len {
			areas[n-1].Len = max(areas[n-1].Len, e.Off+e.Len-areas[n-1].Off)
			continue
		}
		areas[n] = e
		n++
	}
	return areas[:n]
}
