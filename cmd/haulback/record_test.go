package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/hostctl/record"
)

// recordOf writes a record as the daemon of s would, and gives its file. The
// text of a host would clear the screen.
func recordOf(t *testing.T, s *cmdtest.Site, change func(*failback.Status)) string {
	t.Helper()
	at, err := site.At(s.State, "")
	check(t, err)
	dir := filepath.Join(s.State, "records")
	k, err := record.Open(record.Config{Dir: dir, Controller: s.Name, Program: map[string]string{"version": "v1"}, Key: func() (record.Signer, string, error) {
		key, err := at.Key()
		if err != nil {
			return nil, "", err
		}
		return key, key.ID().String(), nil
	}})
	check(t, err)
	began := time.Unix(1000, 0)
	pass := failback.Pass{Number: 1, Final: true, Verified: true, Counters: job.Counters{Total: 5, Scanned: 5, Durable: 5}, Root: cbt.Digest{1}}
	st := &failback.Status{
		ID: "fb-1", Created: began, Ended: began.Add(time.Hour), State: failback.Ready, Activity: failback.Committed, Spec: failback.Spec{VM: "web"},
		Disks:     []failback.Disk{{Label: "scsi0:0", Passes: []failback.Pass{pass}, Verified: true, Root: cbt.Digest{1}}},
		Steps:     []failback.Step{{Name: "power-on", Number: 9, State: failback.Done, Text: "\x1b[2Jall is well"}},
		Decisions: []failback.Decision{{What: "commit", By: "uid 0", At: began}},
	}
	if change != nil {
		change(st)
	}
	check(t, k.Write(t.Context(), st))
	return filepath.Join(dir, st.ID+".json")
}

// TestRecord shows and checks the record of a failback, here and elsewhere.
func TestRecord(t *testing.T) {
	t.Parallel()
	home, laptop := cmdtest.NewSite(t, &programs, "home"), cmdtest.NewSite(t, &programs, "laptop")
	good := recordOf(t, home, nil)
	bad := recordOf(t, home, func(s *failback.Status) { s.ID, s.Disks[0].Verified = "fb-2", false })
	text, err := os.ReadFile(good)
	check(t, err)
	forged := filepath.Join(home.Dir, "forged")
	write(t, forged, strings.Replace(string(text), "uid 0", "uid 1", 1))
	for _, c := range []struct {
		name string
		at   *cmdtest.Site
		args []string
		code int
		want string
	}{
		{"of this site", home, []string{"verify", good}, 0, "good: record of failback fb-1 of web, committed, version 1"},
		{"elsewhere", laptop, []string{"verify", good}, 4, "--key"},
		{"elsewhere, with the ID", laptop, []string{"verify", good, "--key", home.ID}, 0, "good"},
		{"elsewhere, with another ID", laptop, []string{"verify", good, "--key", laptop.ID}, 4, "not by"},
		{"an ID that is none", laptop, []string{"verify", good, "--key", "x"}, 10, "ID"},
		{"changed", home, []string{"verify", forged}, 4, "somebody has changed"},
		{"changed, shown", home, []string{"show", forged}, 4, "somebody has changed"},
		{"not verified", home, []string{"verify", bad}, 4, "WRONG it is committed, and disk scsi0:0 is not verified"},
		{"not verified, shown", home, []string{"show", bad}, 0, "WARNING: the record contradicts itself: it is committed, and disk"},
		{"shown", laptop, []string{"show", good}, 0, "by uid 0"},
		{"replaces nothing", home, []string{"verify", good, "--former", bad}, 4, "does not replace"},
		{"absent", home, []string{"verify", good + "x"}, 10, "records/ID.json"},
		{"a directory", home, []string{"verify", home.Dir}, 10, home.Dir},
		{"endless", home, []string{"verify", "/dev/zero"}, 4, "not a whole record"},
		{"no file", home, []string{"verify"}, 10, "accepts 1 arg"},
	} {
		r := c.at.Run(append([]string{"record"}, c.args...)...)
		if r.Code != c.code || !strings.Contains(r.Out+r.Stderr, c.want) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s%s", c.name, r.Code, c.code, c.want, r.Out, r.Stderr)
		}
		if strings.Contains(r.Out+r.Stderr, "\x1b") {
			t.Errorf("%s: a host speaks to the terminal: %q", c.name, r.Out)
		}
	}
	var line struct {
		Record record.Record `json:"run_record"`
	}
	check(t, json.Unmarshal([]byte(home.OK("--json", "record", "show", good).Out), &line))
	if line.Record.Failback.ID != "fb-1" || line.Record.KeyID != home.ID {
		t.Errorf("%+v", line.Record)
	}

	kept := filepath.Join(laptop.Dir, "kept.json")
	write(t, kept, string(text))
	recordOf(t, home, func(s *failback.Status) { s.Warnings = []string{"x"} })
	if r := laptop.OK("record", "verify", good, "--key", home.ID, "--former", kept); !strings.Contains(r.Out, "version 2") {
		t.Error(r.Out)
	}
}
