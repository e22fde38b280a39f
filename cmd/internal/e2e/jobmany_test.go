package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// TestManyJobs: 200 at once are all done, within 1 GiB, and never more of them
// run than the bounds say: four in all, two of one host.
func TestManyJobs(t *testing.T) {
	t.Parallel()
	const jobs = 200
	desk, home := newJobSite(t, "desk"), newJobSite(t, "home")
	desk.Pair(home.Site)
	desk.up()
	var tables []string
	source := desk.Disk("a", mib+4096, 1)
	targets := make([]string, jobs)
	for i := range targets {
		targets[i] = home.Disk(fmt.Sprintf("t%d", i), mib+4096, 0)
		if i%2 == 0 {
			tables = append(tables, cmdtest.Export(fmt.Sprintf("t%d", i), "file://"+targets[i], "target", desk.Site))
		}
	}
	home.up(tables...)
	call := desk.api()
	var g errgroup.Group
	g.SetLimit(32) // one caller may have 64 requests open
	for i := range targets {
		g.Go(func() error {
			target := targets[i]
			if i%2 == 0 {
				target = home.d.URI(fmt.Sprintf("t%d", i))
			}
			_, err := call("Jobs/Submit", fmt.Sprintf(`{"id":"j%d","spec":{"mode":"MODE_COPY","disks":[{"source":%q,"target":%q}]}}`, i, source, target))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	most, mostHome := 0, 0
	for have := 0; have < jobs; { // however slow the machine is: one more, and one more
		cmdtest.Await(t, "one more job to be done", func() bool {
			running, there, done := countJobs(t, call)
			most, mostHome = max(most, running), max(mostHome, there)
			defer func() { have = done }()
			return done > have
		})
	}
	if most > 4 || mostHome > 2 {
		t.Errorf("%d disks ran at once, %d of them of one host; 4 and 2 may", most, mostHome)
	}
	for _, b := range targets {
		cmdtest.MustEqual(t, source, b)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", desk.d.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			t.Logf("%d jobs, at most %d disks at once, %d of one host; the daemon had %d MiB at most (VmHWM)", jobs, most, mostHome, kib>>10)
			if err != nil || kib > 1<<20 {
				t.Errorf("VmHWM %s (%v): more than 1 GiB", text, err)
			}
		}
	}
}

// countJobs counts the disks that run, those of them at another host, and the
// jobs that are Completed.
func countJobs(t *testing.T, call func(method, body string) (map[string]any, error)) (running, there, done int) {
	t.Helper()
	for token := ""; ; {
		page, err := call("Jobs/List", fmt.Sprintf(`{"pageSize":200,"pageToken":%q}`, token))
		if err != nil {
			t.Fatal(err)
		}
		list, _ := page["jobs"].([]any)
		for _, x := range list {
			j := x.(map[string]any)
			switch j["phase"] {
			case "PHASE_COMPLETED":
				done++
			case "PHASE_PREPARED", "PHASE_IN_PROGRESS":
				running++
				if strings.Contains(fmt.Sprint(j["spec"]), "haulback://") {
					there++
				}
			case "PHASE_FAILED":
				t.Fatalf("a job failed: %v", j)
			}
		}
		if token, _ = page["nextPageToken"].(string); token == "" {
			return running, there, done
		}
	}
}
