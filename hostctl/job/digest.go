package job

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/haulback/haulback/cbt"
	"github.com/zeebo/blake3"
)

// digestContext separates these digests from all others. A change of what is
// hashed below is a new context: old jobs would meet their own specs as others.
const digestContext = "haulback 2026-11-22 job spec v1"

// Digest is the identity of a spec with its defaults filled in: equal for equal
// work, whatever text it came as. Every field is in it, in the order of its
// declaration: integers as 8 bytes big-endian, strings and lists behind their
// length, labels by key.
func Digest(s Spec) cbt.Digest {
	s = s.filled()
	c := canon{}
	c.text(string(s.Mode))
	c.number(int64(len(s.Disks)))
	for _, d := range s.Disks {
		c.text(d.Name)
		c.text(d.Source)
		c.text(d.Target)
		c.text(d.Tracking)
		c.flag(d.Strict)
		c.number(d.Sample)
		c.flag(d.Create)
	}
	c.flag(s.Full)
	c.text(s.Transport)
	c.number(int64(s.Retry))
	c.limits(s.Limits)
	c.number(int64(s.Priority))
	c.number(int64(len(s.Labels)))
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		c.text(k)
		c.text(s.Labels[k])
	}
	h := blake3.NewDeriveKey(digestContext)
	_, _ = h.Write(c.b) // never fails
	var d cbt.Digest
	h.Sum(d[:0])
	return d
}

type canon struct{ b []byte }

func (c *canon) number(n int64) { c.b = binary.BigEndian.AppendUint64(c.b, uint64(n)) }

func (c *canon) text(s string) {
	c.number(int64(len(s)))
	c.b = append(c.b, s...)
}

func (c *canon) flag(f bool) {
	if f {
		c.b = append(c.b, 1)
	} else {
		c.b = append(c.b, 0)
	}
}

func (c *canon) limits(l Limits) {
	c.number(l.Wire)
	c.number(l.Read)
	c.number(int64(l.Latency))
	c.number(int64(len(l.Windows)))
	for _, w := range l.Windows {
		for _, day := range w.Days {
			c.flag(day)
		}
		c.number(int64(w.From))
		c.number(int64(w.To))
		c.number(w.Wire)
		c.number(w.Read)
	}
}
