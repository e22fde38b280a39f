package failbackpb

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// enum is the words of one enumeration, both ways. The number 0 is no word.
type enum[W comparable, E protoreflect.Enum] []struct {
	word W
	code E
}

// code is 0 for a word that the API does not know.
func (e enum[W, E]) code(w W) (none E) {
	for i := range e {
		if e[i].word == w {
			return e[i].code
		}
	}
	return none
}

// word is the zero word for a number that this program does not know.
func (e enum[W, E]) word(c E) (none W) {
	for i := range e {
		if e[i].code.Number() == c.Number() {
			return e[i].word
		}
	}
	return none
}

// known refuses a number that this daemon does not know; 0 is the zero word.
func (e enum[W, E]) known(field string, c E) (w W, err error) {
	var none W
	if w = e.word(c); w == none && c.Number() != 0 {
		return w, jobpb.Invalid(field, "this daemon does not know the value %d", c.Number())
	}
	return w, nil
}

var (
	destinations = enum[failback.Destination, controlv1.Destination]{
		{failback.Original, controlv1.Destination_DESTINATION_ORIGINAL},
		{failback.Existing, controlv1.Destination_DESTINATION_EXISTING},
		{failback.New, controlv1.Destination_DESTINATION_NEW},
	}
	firstPasses = enum[failback.FirstPass, controlv1.FirstPass]{
		{failback.FirstHash, controlv1.FirstPass_FIRST_PASS_HASH},
		{failback.FirstCBT, controlv1.FirstPass_FIRST_PASS_CBT},
	}
	whens = enum[failback.When, controlv1.When]{
		{failback.WhenNow, controlv1.When_WHEN_NOW},
		{failback.WhenAt, controlv1.When_WHEN_AT},
		{failback.WhenManual, controlv1.When_WHEN_MANUAL},
	}
	states = enum[failback.State, controlv1.VmState]{
		{failback.Ready, controlv1.VmState_VM_STATE_READY},
		{failback.Failover, controlv1.VmState_VM_STATE_FAILOVER},
		{failback.ReadyToSwitch, controlv1.VmState_VM_STATE_READY_TO_SWITCH},
		{failback.Failback, controlv1.VmState_VM_STATE_FAILBACK},
	}
	activities = enum[failback.Activity, controlv1.Activity]{
		{failback.Waiting, controlv1.Activity_ACTIVITY_WAITING},
		{failback.Preparing, controlv1.Activity_ACTIVITY_PREPARING},
		{failback.Syncing, controlv1.Activity_ACTIVITY_SYNCING},
		{failback.Standing, controlv1.Activity_ACTIVITY_STANDING},
		{failback.Switching, controlv1.Activity_ACTIVITY_SWITCHING},
		{failback.Deciding, controlv1.Activity_ACTIVITY_DECIDING},
		{failback.Committing, controlv1.Activity_ACTIVITY_COMMITTING},
		{failback.Undoing, controlv1.Activity_ACTIVITY_UNDOING},
		{failback.Canceling, controlv1.Activity_ACTIVITY_CANCELING},
		{failback.Committed, controlv1.Activity_ACTIVITY_COMMITTED},
		{failback.Undone, controlv1.Activity_ACTIVITY_UNDONE},
		{failback.Canceled, controlv1.Activity_ACTIVITY_CANCELED},
	}
	stepStates = enum[failback.StepState, controlv1.StepState]{
		{failback.Intent, controlv1.StepState_STEP_STATE_INTENT},
		{failback.Done, controlv1.StepState_STEP_STATE_DONE},
		{failback.Skipped, controlv1.StepState_STEP_STATE_SKIPPED},
		{failback.Compensating, controlv1.StepState_STEP_STATE_COMPENSATING},
		{failback.Compensated, controlv1.StepState_STEP_STATE_COMPENSATED},
	}
	powers = enum[hostctl.Power, controlv1.Power]{
		{hostctl.Off, controlv1.Power_POWER_OFF},
		{hostctl.On, controlv1.Power_POWER_ON},
		{hostctl.Suspended, controlv1.Power_POWER_SUSPENDED},
	}
)
