package cbt

import (
	"fmt"
	"slices"
	"strings"
)

// Trust says how far a tracker stands behind its answer. No trust makes an
// answer a proof: a plan made from the best hint is still sampled.
type Trust uint8

const (
	// Distrusted is an answer that may have lost changes, and says so itself.
	// It is the zero value: a tracker has to say that it may be believed.
	Distrusted Trust = iota
	// OverReports has every change and may have more.
	OverReports
	// Exact has every change, to its granularity, and no more.
	Exact
)

// String is the word in reports.
func (t Trust) String() string {
	switch t {
	case Exact:
		return "exact"
	case OverReports:
		return "over-reports"
	}
	return "distrusted"
}

// Hint is what a change tracker answers: where a disk may differ from what it
// was at a point in time. It comes from outside, so nothing in it is believed
// before [PlanHint] has looked at it.
type Hint struct {
	Provider    string   // "nbd-bitmap", "fiemap", "vsphere"
	Since       string   // the point in time: a bitmap's name, a file, a change ID
	Size        int64    // bytes of the disk that was tracked
	Granularity int64    // bytes of the tracker's blocks; 0 when not known
	Areas       []Extent // as told: in any order, overlapping, perhaps nonsense
	Trust       Trust
	Remark      string // why Trust is no higher, for the operator, or empty
}

// String names the hint in messages.
func (h *Hint) String() string {
	if h.Since == "" {
		return h.Provider
	}
	return h.Provider + " " + h.Since
}

// Changed is the map of the answer, on a disk of size bytes. Whatever points to
// another disk, or to a tracker that lost count, is an error: then the whole
// answer is worth nothing (facts/reliability.md, B4). What is only untidy is
// put in order, and remark says so.
func (h *Hint) Changed(size int64) (m Map, remark string, err error) {
	switch {
	case h.Trust != Exact && h.Trust != OverReports:
		return m, "", fmt.Errorf("%s is not to be trusted: %s", h, or(h.Remark, "it says so itself"))
	case h.Size != size:
		return m, "", fmt.Errorf("%s tracked a disk of %d bytes, this one has %d", h, h.Size, size)
	case h.Granularity < 0:
		return m, "", fmt.Errorf("%s: granularity of %d bytes", h, h.Granularity)
	}
	if m, err = FromAreas(h.clipped(size), size); err != nil {
		return Map{}, "", fmt.Errorf("%s: %w", h, err)
	}
	return m, untidy(h.Areas), nil
}

// clipped is the areas, those that reach beyond the end of the disk by less than
// a block clipped there: trackers round up.
func (h *Hint) clipped(size int64) []Extent {
	areas := h.Areas
	for i, e := range areas {
		over := e.Off + e.Len - size
		if e.Off < 0 || e.Off >= size || e.Len <= 0 || over <= 0 || over >= h.Granularity {
			continue // in order, or not to be put right
		}
		if &areas[0] == &h.Areas[0] {
			areas = slices.Clone(areas)
		}
		areas[i].Len -= over
	}
	return areas
}

// untidy says what FromAreas put in order.
func untidy(areas []Extent) string {
	unsorted, overlapping := 0, 0
	for i := 1; i < len(areas); i++ {
		switch before := areas[i-1]; {
		case areas[i].Off < before.Off:
			unsorted++
		case areas[i].Off < before.End():
			overlapping++
		}
	}
	var said []string
	if unsorted > 0 {
		said = append(said, fmt.Sprintf("%d areas were out of order", unsorted))
	}
	if overlapping > 0 {
		said = append(said, fmt.Sprintf("%d areas overlapped", overlapping))
	}
	return strings.Join(said, ", ")
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
