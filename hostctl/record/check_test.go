package record

import (
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// TestCheck finds every contradiction that a record may have, and nothing in one
// that has none.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name, want string
		note       bool
		do         func(*failback.Status)
	}{
		{name: "nothing", do: func(*failback.Status) {}},
		{name: "undone, not verified", do: func(s *failback.Status) {
			s.State, s.Activity, s.Decisions[1].What = failback.Failover, failback.Undone, "undo"
			s.Disks[0].Verified, s.Disks[0].Failure = false, &job.Failure{Text: "x"}
		}},
		{name: "canceled, never began", do: func(s *failback.Status) {
			s.State, s.Activity, s.Disks = failback.Failover, failback.Canceled, nil
		}},
		{name: "committed, a disk not verified", want: "disk scsi0:0 is not verified", do: func(s *failback.Status) { s.Disks[0].Verified = false }},
		{name: "in state Failback, a disk not verified", want: "it is deciding, and disk scsi0:0 is not verified", do: func(s *failback.Status) {
			s.Activity, s.Ended, s.Disks[0].Verified = failback.Deciding, time.Time{}, false
		}},
		{name: "an override", want: `an override of "uid 0"`, note: true, do: func(s *failback.Status) {
			s.Disks[0].Verified, s.Spec.PowerOnUnproved = false, true
		}},
		{name: "no final pass", want: "had no pass after the replica was off", do: func(s *failback.Status) { s.Disks[0].Passes[1].Final = false }},
		{name: "no pass", want: "had no pass", do: func(s *failback.Status) { s.Disks[0].Passes = nil }},
		{name: "last pass failed", want: "its last pass did not verify it", do: func(s *failback.Status) { s.Disks[0].Passes[1].Verified = false }},
		{name: "verified and failed", want: "and failed: x", do: func(s *failback.Status) { s.Disks[0].Failure = &job.Failure{Text: "x"} }},
		{name: "nothing compared", want: "nothing of it was compared", do: func(s *failback.Status) {
			s.Disks[0].Passes[0].Counters, s.Disks[0].Passes[1].Counters = job.Counters{Total: 5}, job.Counters{Total: 5}
		}},
		{name: "nothing left for the last pass", do: func(s *failback.Status) { s.Disks[0].Passes[1].Counters = job.Counters{Total: 5} }},
		{name: "bad grains", want: "3 grains that stayed different", do: func(s *failback.Status) { s.Disks[0].Passes[1].Counters.BadGrains = 3 }},
		{name: "another root", want: "another root", do: func(s *failback.Status) { s.Disks[0].Root = cbt.Digest{9} }},
		{name: "no root", want: "has no root", note: true, do: func(s *failback.Status) { s.Disks[0].Root = cbt.Digest{} }},
		{name: "left out and written", want: "left out, and was written", do: func(s *failback.Status) { s.Disks[1].Passes = s.Disks[0].Passes[1:] }},
		{name: "twice", want: "there twice", do: func(s *failback.Status) { s.Disks[1].Label = "scsi0:0" }},
		{name: "no disk", want: "no disk is in it", do: func(s *failback.Status) { s.Disks = nil }},
		{name: "no end", want: "has no end", do: func(s *failback.Status) { s.Ended = time.Time{} }},
		{name: "an end too early", want: "it has ended, and is syncing", do: func(s *failback.Status) { s.Activity = failback.Syncing }},
		{name: "backwards", want: "ended before it began", do: func(s *failback.Status) { s.Ended = s.Created.Add(-1) }},
		{name: "a step backwards", want: "step power-off-target ended before", do: func(s *failback.Status) { s.Steps[0].Ended = s.Created.Add(-1) }},
		{name: "a pass backwards", want: "pass 2 ended before", do: func(s *failback.Status) { s.Disks[0].Passes[1].Ended = s.Created.Add(-1) }},
		{name: "an open step", want: "begun and not ended", do: func(s *failback.Status) { s.Steps[0].State = failback.Intent }},
		{name: "a wrong state", want: `its VM in state "Failback"`, do: func(s *failback.Status) { s.State = failback.Failback }},
		{name: "nobody", want: "nobody is named", note: true, do: func(s *failback.Status) { s.Decisions = nil }},
		{name: "less than nothing", want: "less than nothing", do: func(s *failback.Status) { s.Downtime = -time.Second }},
	} {
		s := committed()
		c.do(s)
		list := parse(t, write(t, keeper(t, nil), s)).Check()
		if c.want == "" {
			if len(list) != 0 {
				t.Errorf("%s: %+v", c.name, list)
			}
			continue
		}
		found := false
		for _, f := range list {
			found = found || strings.Contains(f.Text, c.want) && f.Note == c.note
		}
		if !found {
			t.Errorf("%s: %q is not among %+v", c.name, c.want, list)
		}
	}
}

// TestCheckOfItself finds what a status cannot have: a record made by hand.
func TestCheckOfItself(t *testing.T) {
	for want, do := range map[string]func(*Record){
		"version 0":                     func(r *Record) { r.Version = 0 },
		"version 2 does not name":       func(r *Record) { r.Version = 2 },
		"and 0 are told as overwritten": func(r *Record) { r.Failback.Overwritten = nil },
		"and 4097 are told":             func(r *Record) { r.Failback.Overwritten[0].Bytes++ },
	} {
		r := parse(t, write(t, keeper(t, nil), committed()))
		do(r)
		if list := r.Check(); len(list) != 1 || !strings.Contains(list[0].Text, want) {
			t.Errorf("%s: %+v", want, list)
		}
	}
}

// FuzzParse takes any bytes without a panic; what it takes for a record is
// exactly what would be written, and its check ends.
func FuzzParse(f *testing.F) {
	text := write(f, keeper(f, nil), committed())
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add([]byte(`{"schema":1}`))
	f.Add([]byte(strings.Repeat("[", 1000)))
	f.Add([]byte(strings.Replace(string(text), `"schema":1`, `"schema":2`, 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if r != nil {
			r.Check()
			r.PublicKey()
		}
		if err == nil && (r.Schema != Schema || !strings.HasSuffix(string(text), r.Signature+"\"}\n")) {
			t.Errorf("%q is a record", text)
		}
	})
}
