package failback

import (
	"strings"
	"testing"
)

// TestStateTable asks every verb in every place. What is not in the table of the
// failback page is refused, each with a stable reason and a remedy.
func TestStateTable(t *testing.T) {
	states := []State{Ready, Failover, ReadyToSwitch, Failback}
	activities := []Activity{"", Waiting, Preparing, Syncing, Standing, Switching, Deciding, Committing, Undoing, Canceling, Committed, Undone, Canceled}
	type key struct {
		State
		Activity
		verb
	}
	// The rows of the page: where the VM stands, what is asked, where it stands then.
	allowed := map[key]verdict{
		{Ready, "", doFailover}:               {State: Failover},
		{Ready, "", doRemove}:                 {State: Ready},
		{Failover, "", doStart}:               {State: Failover, Activity: Waiting},
		{Failover, "", doUndoFailover}:        {State: Ready},
		{Failover, Syncing, doCancel}:         {State: Failover, Activity: Canceling},
		{Failover, Syncing, doSwitch}:         {State: Failover, Activity: Syncing},
		{Failover, Switching, doCancel}:       {State: Failover, Activity: Canceling},
		{Failover, Switching, doUndo}:         {State: Failover, Activity: Canceling},
		{ReadyToSwitch, Standing, doStart}:    {State: ReadyToSwitch, Activity: Syncing},
		{ReadyToSwitch, Standing, doContinue}: {State: ReadyToSwitch, Activity: Syncing},
		{ReadyToSwitch, Standing, doSwitch}:   {State: ReadyToSwitch, Activity: Standing},
		{ReadyToSwitch, Standing, doUndo}:     {State: Failover, Activity: Canceling},
		{ReadyToSwitch, Standing, doCancel}:   {State: Failover, Activity: Canceling},
		{ReadyToSwitch, Syncing, doUndo}:      {State: Failover, Activity: Canceling},
		{ReadyToSwitch, Switching, doCancel}:  {State: Failover, Activity: Canceling},
		{Failback, Deciding, doCommit}:        {State: Failback, Activity: Committing},
		{Failback, Deciding, doUndo}:          {State: Failover, Activity: Undoing},
		{Failback, Switching, doUndo}:         {State: Failover, Activity: Undoing},
		{Failback, Committing, doCommit}:      {State: Failback, Activity: Committing, Same: true},
		{Ready, Committed, doCommit}:          {State: Ready, Activity: Committed, Same: true},
		{Failover, Undone, doUndo}:            {State: Failover, Activity: Undone, Same: true},
		{Failover, Canceled, doCancel}:        {State: Failover, Activity: Canceled, Same: true},
		{Ready, Committed, doFailover}:        {State: Failover, Activity: Committed},
		{Failover, Undone, doStart}:           {State: Failover, Activity: Waiting},
		{Failover, Canceled, doStart}:         {State: Failover, Activity: Waiting},
		{Failover, Canceled, doUndo}:          {State: Failover, Activity: Canceled, Same: true},
		{Failover, Undone, doUndoFailover}:    {State: Ready, Activity: Undone},
		{Failover, Canceled, doUndoFailover}:  {State: Ready, Activity: Canceled},
		{Ready, Committed, doRemove}:          {State: Ready, Activity: Committed},
		{ReadyToSwitch, Syncing, doCancel}:    {State: Failover, Activity: Canceling},
		{Failover, Waiting, doCancel}:         {State: Failover, Activity: Canceling},
		{Failover, Preparing, doCancel}:       {State: Failover, Activity: Canceling},
		{Failover, Waiting, doSwitch}:         {State: Failover, Activity: Waiting},
		{ReadyToSwitch, Syncing, doSwitch}:    {State: ReadyToSwitch, Activity: Syncing},
		{Failover, Preparing, doSwitch}:       {State: Failover, Activity: Preparing},
		{ReadyToSwitch, Switching, doUndo}:    {State: Failover, Activity: Canceling},
		{ReadyToSwitch, Canceling, doCancel}:  {State: ReadyToSwitch, Activity: Canceling, Same: true},
		{ReadyToSwitch, Canceling, doUndo}:    {State: ReadyToSwitch, Activity: Canceling, Same: true},
		{Failover, Canceling, doUndo}:         {State: Failover, Activity: Canceling, Same: true},
		{Failover, Canceling, doCancel}:       {State: Failover, Activity: Canceling, Same: true},
		{Failback, Undoing, doUndo}:           {State: Failback, Activity: Undoing, Same: true},
		{Failover, Undoing, doUndo}:           {State: Failover, Activity: Undoing, Same: true},
		{Ready, Committing, doCommit}:         {State: Ready, Activity: Committing, Same: true},
	}
	// Where a VM and its failback can be at all.
	possible := func(s State, a Activity) bool {
		switch a {
		case "":
			return s == Ready || s == Failover
		case Waiting, Preparing, Undone, Canceled:
			return s == Failover
		case Syncing, Canceling:
			return s == Failover || s == ReadyToSwitch
		case Standing:
			return s == ReadyToSwitch
		case Switching:
			return s != Ready
		case Deciding:
			return s == Failback
		case Committing:
			return s == Failback || s == Ready
		case Undoing:
			return s == Failback || s == Failover
		case Committed:
			return s == Ready
		}
		return false
	}
	asked, used := 0, map[key]bool{}
	for _, s := range states {
		for _, a := range activities {
			for _, v := range verbs {
				for _, halted := range []bool{false, true} {
					asked++
					got := decide(place{State: s, Activity: a, Halted: halted}, v)
					checkVerdict(t, s, a, v, got)
					k := key{s, a, v}
					want, ok := allowed[k]
					if !possible(s, a) || halted && (v == doContinue || v == doStart) {
						continue
					}
					switch {
					case ok && got != want:
						t.Errorf("%s, %s (halted %v): %s: %+v, want %+v", s, a, halted, v, got, want)
					case !ok && !got.refused():
						t.Errorf("%s, %s (halted %v): %s is allowed: %+v", s, a, halted, v, got)
					}
					used[k] = ok
				}
			}
		}
	}
	for k := range allowed {
		if !used[k] {
			t.Errorf("%v was never asked", k)
		}
	}
	if want := len(states) * len(activities) * len(verbs) * 2; asked != want {
		t.Errorf("%d of %d pairs were asked", asked, want)
	}
}

// checkVerdict wants one answer, and never a nameless refusal.
func checkVerdict(t *testing.T, s State, a Activity, v verb, got verdict) {
	t.Helper()
	if got.refused() {
		if got.Text == "" || got.Remedy == "" || got.State != "" || strings.ToUpper(got.Reason) != got.Reason {
			t.Errorf("%s, %s: %s is refused as %+v", s, a, v, got)
		}
		return
	}
	if got.State == "" {
		t.Errorf("%s, %s: %s leads nowhere: %+v", s, a, v, got)
	}
}

// TestStateTableHalted has what is allowed only where a failback is halted.
func TestStateTableHalted(t *testing.T) {
	for _, a := range []Activity{Waiting, Preparing, Syncing, Standing, Switching, Deciding, Committing, Undoing, Canceling} {
		got := decide(place{State: Failback, Activity: a, Halted: true}, doContinue)
		if got.refused() || got.Activity != a || got.Same {
			t.Errorf("continue of a halted failback that is %s: %+v", a, got)
		}
		if a == Standing {
			continue // another pass
		}
		if got := decide(place{State: Failback, Activity: a}, doContinue); got.Reason != ReasonNotHalted {
			t.Errorf("continue of a failback that is %s: %+v", a, got)
		}
	}
	// FB-19: the target does not start, an operator starts it and commits.
	if got := decide(place{State: Failback, Activity: Switching, Halted: true, Powering: true}, doCommit); got.Activity != Committing {
		t.Errorf("commit of one that is halted in step 9: %+v", got)
	}
	// FB-05: three states, three errors.
	reasons := map[string]bool{}
	for _, at := range []place{{State: Ready}, {State: Failback, Activity: Deciding}, {State: Failover, Activity: Syncing}} {
		reasons[decide(at, doStart).Reason] = true
	}
	if len(reasons) != 3 || reasons[""] {
		t.Errorf("start is refused with %v", reasons)
	}
}
