package record

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Finding is something about a record that somebody should read.
type Finding struct {
	Text string
	Note bool // worth a look; else the record contradicts itself or its promises
}

// checker collects findings.
type checker struct {
	f    *Failback
	list []Finding
}

func (c *checker) wrong(format string, args ...any) {
	c.list = append(c.list, Finding{Text: fmt.Sprintf(format, args...)})
}

func (c *checker) note(format string, args ...any) {
	c.list = append(c.list, Finding{Text: fmt.Sprintf(format, args...), Note: true})
}

// Check says where a record contradicts itself, or tells of a success that is
// none. An empty list, or notes alone, is a record to believe, if its key is.
func (r *Record) Check() []Finding {
	c := &checker{f: &r.Failback}
	if r.Version < 1 || r.Version > 1 && r.Previous == "" {
		c.wrong("version %d does not name the one that it replaces", r.Version)
	}
	if r.Version == 1 && r.Previous != "" {
		c.note("the record before this one was damaged, and was put aside")
	}
	c.life()
	c.steps()
	labels := map[string]bool{}
	for i := range c.f.Disks {
		d := &c.f.Disks[i]
		if labels[d.Label] {
			c.wrong("disk %q is there twice", d.Label)
		}
		labels[d.Label] = true
		c.disk(d)
	}
	c.overwritten()
	return c.list
}

// Replaces reports whether r is the version after the one in the file former.
func (r *Record) Replaces(former []byte) bool {
	sum := sha256.Sum256(former)
	old, err := Parse(former)
	return err == nil && old.Failback.ID == r.Failback.ID && old.Version+1 == r.Version && hex.EncodeToString(sum[:]) == r.Previous
}

// home reports whether the VM was brought home, as the record tells it.
func (f *Failback) home() bool {
	return f.Activity == "deciding" || f.Activity == "committing" || f.Activity == "committed"
}

func (f *Failback) over() bool {
	return f.Activity == "committed" || f.Activity == "undone" || f.Activity == "canceled"
}

// life checks what the failback as a whole came to.
func (c *checker) life() {
	f := c.f
	switch {
	case f.over() && f.Ended == nil:
		c.wrong("it is %s, and has no end", f.Activity)
	case !f.over() && f.Ended != nil:
		c.wrong("it has ended, and is %s", f.Activity)
	case f.Ended != nil && f.Created != nil && f.Ended.Before(*f.Created):
		c.wrong("it ended before it began")
	}
	if f.home() && len(f.Disks) == 0 {
		c.wrong("it is %s, and no disk is in it", f.Activity)
	}
	if f.Activity == "committed" && f.State != "Ready" {
		c.wrong("it is committed, and its VM in state %q", f.State)
	}
	if f.DowntimeMS < 0 || f.PredictedMS < 0 {
		c.wrong("a downtime is less than nothing")
	}
	verb := map[string]string{"committed": "commit", "undone": "undo"}[f.Activity]
	if verb != "" && !f.decided(verb) {
		c.note("it is %s, and nobody is named who said so", f.Activity)
	}
}

func (f *Failback) decided(what string) bool {
	for _, d := range f.Decisions {
		if d.What == what && d.By != "" {
			return true
		}
	}
	return false
}

func (c *checker) steps() {
	for i := range c.f.Steps {
		s := &c.f.Steps[i]
		open := s.State == "intent" || s.State == "compensating"
		if open && c.f.over() {
			c.wrong("step %s is begun and not ended, and the failback is %s", s.Name, c.f.Activity)
		}
		if backwards(s.Began, s.Ended) {
			c.wrong("step %s ended before it began", s.Name)
		}
	}
}

func backwards(began, ended *time.Time) bool {
	return began != nil && ended != nil && ended.Before(*began)
}

// disk checks that what is called verified was, and that what was brought home
// is.
func (c *checker) disk(d *Disk) {
	if d.Excluded {
		if len(d.Passes) > 0 {
			c.wrong("disk %s is left out, and was written", d.Label)
		}
		return
	}
	for i := range d.Passes {
		if backwards(d.Passes[i].Began, d.Passes[i].Ended) {
			c.wrong("disk %s: pass %d ended before it began", d.Label, d.Passes[i].Number)
		}
	}
	var last *Pass
	if n := len(d.Passes); n > 0 {
		last = &d.Passes[n-1]
	}
	if c.f.home() {
		c.brought(d, last)
	}
	switch {
	case !d.Verified:
	case last == nil || !last.Verified:
		c.wrong("disk %s is called verified, and its last pass did not verify it", d.Label)
	case d.Failure != nil:
		c.wrong("disk %s is called verified, and failed: %s", d.Label, d.Failure.Text)
	case last.Counters.BadGrains > 0:
		c.wrong("disk %s is called verified with %d grains that stayed different", d.Label, last.Counters.BadGrains)
	case last.Counters.Total > 0 && compared(d.Passes) == 0:
		c.wrong("disk %s is called verified, and nothing of it was compared", d.Label)
	case d.Root == "" && d.Sampled == "":
		c.note("disk %s is verified, and has no root", d.Label)
	case last.Root != "" && d.Root != "" && last.Root != d.Root:
		c.wrong("disk %s has another root than its last pass", d.Label)
	}
}

// compared is what all passes have read and compared: the last one alone may
// have had nothing left to do.
func compared(passes []Pass) (n int64) {
	for i := range passes {
		n += passes[i].Counters.Scanned
	}
	return n
}

// brought checks a disk of a VM that was brought home.
func (c *checker) brought(d *Disk, last *Pass) {
	proved := d.Verified && last != nil && last.Final && last.Verified
	switch {
	case proved:
	case c.f.Asked.PowerOnUnproved:
		c.note("it is %s, and disk %s is not verified: an override of %q allowed that", c.f.Activity, d.Label, c.f.Owner)
	case d.Verified && (last == nil || !last.Final):
		c.wrong("it is %s, and disk %s had no pass after the replica was off", c.f.Activity, d.Label)
	default:
		c.wrong("it is %s, and disk %s is not verified", c.f.Activity, d.Label)
	}
}

// overwritten checks that what was overwritten is told, disk by disk.
func (c *checker) overwritten() {
	said := map[VirtualDisk]int64{}
	for _, o := range c.f.Overwritten {
		said[o.Disk] += o.Bytes
	}
	for i := range c.f.Disks {
		d := &c.f.Disks[i]
		if n := written(d.Passes); n != said[d.Target] {
			c.wrong("disk %s: %d bytes were written to its target, and %d are told as overwritten", d.Label, n, said[d.Target])
		}
	}
}
