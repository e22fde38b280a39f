package failback

import (
	"maps"
	"slices"
	"strings"
)

// numbers are all steps by their names, and where they belong on the failback
// page. Hooks name them: a name is never given another meaning.
var numbers = map[string]int{
	"claim-replica": 1, "guard-replica": 1, "power-off-original": 1, "create-target": 1, "claim-target": 1, "guard-target": 1,
	"power-off-target": 1, "protect-target": 1, "mark-target": 1,
	"enable-tracking": 2, "replace-tracking": 2, "track-replica": 2, "pair-disks": 2,
	"pass":              3,
	"power-off-replica": 4,
	"release-tracking":  5, "protect-replica": 5,
	"final-pass": 6,
	"state":      7, "hold-replication": 7,
	"register": 8, "networks": 8, "rebind": 8,
	"unmark-target": 9, "power-on": 9, "release-leftovers": 9,

	"commit-unprotect-target": 10, "commit-release-tracking": 10, "commit-delete-protective": 10, "commit-reset-tracking": 10,
	"commit-unclaim-target": 10, "commit-unguard-target": 10, "commit-unclaim-replica": 10, "commit-unguard-replica": 10,
	"commit-release-replication": 10, "commit-state": 10,
}

// back are the steps that undo and cancel have, with the names of either before
// them.
var back = []string{
	"power-off-target", "rebind", "release-replication", "power-on-replica", "release-snapshots", "destroy-target", "mark-target", "restore-target",
	"unprotect-target", "unmark-target", "unclaim-target", "unguard-target", "unclaim-replica", "unguard-replica",
}

// StepNumber is where a step belongs on the failback page: 1 to 9, 10 commit, 11
// undo, 12 cancel; 0: there is no step of that name. Further tries and passes
// count as the first ("pass-2", "power-off-replica-2").
func StepNumber(step string) int {
	name := strings.TrimSuffix(strings.TrimRight(step, "0123456789"), "-")
	for _, s := range []string{step, name} {
		if n := numbers[s]; n > 0 {
			return n
		}
		if rest, ok := strings.CutPrefix(s, "undo-"); ok && (slices.Contains(back, rest) || rest == "restore-replica") {
			return 11
		}
		if rest, ok := strings.CutPrefix(s, "cancel-"); ok && slices.Contains(back, rest) {
			return 12
		}
	}
	return 0
}

// StepNames are the steps of a failback up to state Failback, and of a commit;
// undo and cancel have names of their own, which begin with these words.
func StepNames() []string { return slices.Sorted(maps.Keys(numbers)) }
