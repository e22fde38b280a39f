package screen

import (
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// TestHomeSaysAllPasses: what is read at the end is what all passes of a disk
// brought home, not what the last one had left to do; and that nobody has
// powered the VM on.
func TestHomeSaysAllPasses(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	pass := func(n uint32, final bool, differing, sent int64) failback.Pass {
		return failback.Pass{
			Number: n, Final: final, Began: at, Ended: at, Verified: true,
			Counters: job.Counters{Total: 16 << 20, Differing: differing, Sent: sent},
		}
	}
	s := &failback.Status{
		ID: "f", Spec: failback.Spec{VM: "web"}, State: failback.Failback, Activity: failback.Deciding, Downtime: 42 * time.Second,
		Target: hostctl.Ref{Host: "home", Name: "web-prod"}, Replica: hostctl.Ref{Host: "dr", Name: "web-dr"},
		Steps: []failback.Step{{Name: "power-off-replica", Number: 4, State: failback.Done, Began: at}, {Name: "power-on", Number: 9, State: failback.Skipped, Text: "power on web-prod: not asked for"}},
		Disks: []failback.Disk{{
			Label: "scsi0:0", Replica: hostctl.Disk{Size: 16 << 20}, Verified: true,
			Passes: []failback.Pass{pass(1, false, 3<<20, 2<<20), pass(2, true, 1<<20, 1<<20)},
		}},
	}
	got := Status(s, at, 120)
	for _, want := range []string{
		"haulback did not power home/web-prod on; nobody serves until somebody does", "42s to the end of step 9, and on until it is powered on",
		"Verified: 16.0 MiB, in 2 passes 4.0 MiB differed, 3.0 MiB sent", "skipped power on web-prod: not asked for",
	} {
		if !strings.Contains(got, want) && !strings.Contains(strings.ReplaceAll(got, "  ", " "), strings.ReplaceAll(want, "   ", " ")) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	s.Steps[1].State = failback.Done
	if got = Status(s, at, 120); !strings.Contains(got, "(powered on)") || strings.Contains(got, "until") || !strings.Contains(got, "home/web-prod was powered on") {
		t.Errorf("a VM that was powered on:\n%s", got)
	}
}

// TestPlanOfNobody: where a VM was not found there is nothing to say of disks,
// steps and times but the problem.
func TestPlanOfNobody(t *testing.T) {
	p := &failback.Plan{
		VM: "web", Destination: failback.Existing, Why: "why", Downtime: time.Minute,
		Problems: []hostctl.Problem{{Reason: "VM_NOT_FOUND", Text: "the target: host home: VM \"nix\": not found on the host", Remedy: "check the VM's name"}},
	}
	want := "web CANNOT be brought home yet: 1 problem, see the end. Nothing was done.\n" +
		"  why        why\n\nProblems: nothing is started while there are any\n" +
		"  x the target: host home: VM \"nix\": not found on the host.\n      check the VM's name\n      (VM_NOT_FOUND)\n"
	if got := Plan(p, "haulback failback start web", Full, 80); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestUnpluggedIsSaid: a VM that was powered on isolated stays so until somebody
// plugs it in, also after the commit.
func TestUnpluggedIsSaid(t *testing.T) {
	for _, a := range []failback.Activity{failback.Deciding, failback.Committed} {
		for _, isolated := range []bool{true, false} {
			s := &failback.Status{
				ID: "f", Activity: a, State: failback.Failback, Spec: failback.Spec{VM: "web", Destination: failback.New, Isolated: isolated},
				Target: hostctl.Ref{Host: "home", Name: "web-new"}, Steps: []failback.Step{{Name: "power-on", State: failback.Done}},
			}
			if said := strings.Contains(Status(s, time.Now(), 200), "plug"); said != isolated {
				t.Errorf("%s, isolated %v: %v", a, isolated, said)
			}
		}
	}
}
