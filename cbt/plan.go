package cbt

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"
)

// planContext separates plan digests from every other use of BLAKE3.
const planContext = "haulback 2026 plan v1"

// Mode says what a plan was made from. The numbers are part of Plan.Digest.
type Mode uint8

const (
	// ModeFull reads every grain. Only such a plan can end in an unqualified
	// "verified".
	ModeFull Mode = 1
	// ModeHint reads the grains of a hint and a sample of the others.
	ModeHint Mode = 2
)

// String is "full" or "hint".
func (m Mode) String() string {
	switch m {
	case ModeFull:
		return "full"
	case ModeHint:
		return "hint"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// Plan is what one pass reads of a disk. PlanFull and PlanHint make plans.
//
// A plan made from a hint proves nothing about what it leaves out: change
// tracking has lost changes in the field (facts/reliability.md, B2). The sample
// is there to notice. A sampled grain that differs means that the hint lied,
// and that the pass must be planned anew in full.
type Plan struct {
	Size    int64  // of the disk, in bytes
	Read    Map    // all that is read, in whole grains: the hint and the sample
	Sampled Map    // the part of Read that the hint declared unchanged
	Mode    Mode   // what the plan really is, whatever was asked for
	Reason  string // why this mode, for the operator
}

// PlanFull reads all of a disk of size bytes.
func PlanFull(size int64) Plan { return fullBecause(size, "asked for") }

// Sampling says how many of the grains that a hint declares unchanged are read
// all the same. The zero value is the default: one grain in 256, at least 64.
type Sampling struct {
	Every int64  // one grain in so many; 0 means 256, below that is refused
	Least int64  // grains to sample at least, as far as there are that many; 0 means 64
	Seed  uint64 // draws them; equal seeds draw equal samples on every machine
}

// The defaults of Sampling. 1/256 costs 4 GiB of reading per TiB; 64 grains
// keep the sample of a small disk from being one or two.
const (
	sampleEvery = 256
	sampleLeast = 64
)

// every is the stride for n grains to draw from.
func (s Sampling) every(n int64) int64 {
	if s.Every == 0 {
		s.Every = sampleEvery
	}
	if s.Least == 0 {
		s.Least = sampleLeast
	}
	if s.Every > 0 && s.Least > 0 && n/s.Every < s.Least {
		return max(1, n/s.Least)
	}
	return s.Every
}

// coarse is the number of extents above which a hint is widened to batches. A
// tracker of every second grain of a large disk would otherwise make the plan
// larger than the 1 bit per grain that there is memory for.
const coarse = 1 << 20

// PlanHint reads the grains that the hint touches and a sample of the others,
// always with the first and the last grain of the disk; equal arguments make
// equal plans on every machine. An error from asking the tracker goes into
// known. With one, with a nil, distrusted or impossible hint, or with a
// sampling below one grain in one (a hint nobody checks), the plan is full and
// its Reason says why. An empty hint without an error is believed to say that
// nothing changed, which the sample then checks.
func PlanHint(size int64, hint *Hint, known error, sampling Sampling) Plan {
	switch {
	case known != nil:
		return fullBecause(size, fmt.Sprintf("no hint: %v", known))
	case hint == nil:
		return fullBecause(size, "no hint: nothing tracks the changes of this disk")
	case sampling.Every < 0 || sampling.Least < 0:
		return fullBecause(size, "no hint without a sample")
	}
	areas, remark, err := hint.Changed(size)
	if err != nil {
		return fullBecause(size, fmt.Sprintf("bad hint: %v", err))
	}
	changed := areas.AlignGrains(size)
	if changed.Count() > coarse {
		changed, remark = changed.widen(BatchSize, size), join(remark, "widened to 1 MiB")
	}
	rest := changed.Complement(size)
	sampled := sample(rest, size, sampling.every(rest.Len()/GrainSize), sampling.Seed)
	sampled = sampled.Union(edges(size).Intersect(rest))
	return Plan{
		Size:    size,
		Read:    changed.Union(sampled),
		Sampled: sampled,
		Mode:    ModeHint,
		Reason:  join(fmt.Sprintf("%s, %s, %d areas", hint, hint.Trust, len(hint.Areas)), remark, hint.Remark),
	}
}

// PlanSample reads a sample of a disk of size bytes, always with the first and
// the last grain, to see how alike two disks are. Nothing declares the rest
// unchanged: a grain that differs is what is looked for. One grain in one, or a
// sampling that is none, is the full plan.
func PlanSample(size int64, sampling Sampling) Plan {
	whole := Map{}
	if size > 0 {
		whole.Add(Extent{Len: size})
	}
	every := sampling.every(Grains(size))
	if sampling.Every < 0 || sampling.Least < 0 || every <= 1 {
		return PlanFull(size)
	}
	read := sample(whole, size, every, sampling.Seed).Union(edges(size))
	return Plan{Size: size, Read: read, Mode: ModeHint, Reason: fmt.Sprintf("a sample of one grain in %d", every)}
}

// edges is the first and the last grain. They hold the partition tables, which
// everything else of the disk hangs on, and a pass that reads them has read
// something whatever the hint says.
func edges(size int64) (m Map) {
	if n := Grains(size); n > 0 {
		m.Add(Grain(0, size))
		m.Add(Grain(n-1, size))
	}
	return m
}

func join(parts ...string) string {
	var said []string
	for _, p := range parts {
		if p != "" {
			said = append(said, p)
		}
	}
	return strings.Join(said, "; ")
}

// fullBecause is the full plan with its reason.
func fullBecause(size int64, reason string) Plan {
	p := Plan{Size: size, Mode: ModeFull, Reason: reason}
	p.Read.Add(Extent{Len: size})
	return p
}

// Skipped is what the plan does not read: what a pass has not compared.
func (p Plan) Skipped() Map { return p.Read.Complement(p.Size) }

// Digest identifies what is read of how large a disk, and of that what is only
// a sample. Two daemons compare it before a pass, and a journal names it. The
// Reason is not part of it.
func (p Plan) Digest() (d Digest) {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.Size))
	b = append(b, byte(p.Mode))
	b = p.Read.AppendTo(b)
	b = p.Sampled.AppendTo(b)
	blake3.DeriveKey(planContext, b, d[:])
	return d
}

// sample draws one grain from every stride of the grains of rest, in disk
// order; a last, shorter stride gives one as well. One per stride, rather than
// each grain with a probability, so that no stretch of the disk goes unseen.
func sample(rest Map, size, every int64, seed uint64) Map {
	total := int64(0)
	for lo, hi := range rest.grainRuns(size) {
		total += hi - lo
	}
	pick := func(stride int64) int64 { // its number among the grains of rest
		begin := stride * every
		width := min(every, total-begin)
		return begin + int64(draw(seed, uint64(stride))%uint64(width))
	}
	var s Map
	before := int64(0) // grains of rest before this run
	stride := int64(0)
	for lo, hi := range rest.grainRuns(size) {
		for ; stride*every < total; stride++ {
			i := lo + pick(stride) - before
			if i >= hi {
				break
			}
			s.push(Grain(i, size))
		}
		before += hi - lo
	}
	return s
}

// draw is the k-th number of the SplitMix64 sequence of a seed. It is written
// out because plans must be equal across versions of Go.
func draw(seed, k uint64) uint64 {
	z := seed + (k+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
