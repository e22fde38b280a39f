package failback

import "testing"

// TestRefuses: what a status is told of a verb is what the engine answers to it.
func TestRefuses(t *testing.T) {
	words := map[string]verb{"switch": doSwitch, "commit": doCommit, "undo": doUndo, "cancel": doCancel, "continue": doContinue}
	for _, a := range []Activity{Waiting, Preparing, Syncing, Standing, Switching, Deciding, Committing, Undoing, Canceling, Committed, Undone, Canceled} {
		for _, s := range []State{Ready, Failover, ReadyToSwitch, Failback} {
			for _, halt := range []*Halt{nil, {Step: "power-on"}} {
				for _, unmarked := range []StepState{Intent, Done} {
					st := &Status{Activity: a, State: s, Halted: halt, Steps: []Step{{Name: "unmark-target", State: unmarked}}}
					at := place{State: s, Activity: a, Halted: halt != nil, Powering: halt != nil && unmarked == Done}
					for word, v := range words {
						d := decide(at, v)
						got := st.Refuses(word)
						if (got != nil) != (d.refused() || d.Same) || got != nil && d.refused() && got.Reason != d.Reason {
							t.Errorf("%s at %+v: %v; the table says %+v", word, at, got, d)
						}
					}
				}
			}
		}
	}
	if f := (&Status{Activity: Syncing}).Refuses("nonsense"); f == nil {
		t.Error("a word that is no verb is allowed")
	}
}
