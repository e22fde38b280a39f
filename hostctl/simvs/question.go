package simvs

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// questionID is that of the one question that is asked.
const questionID = "_vmx1"

// ask waits until somebody answers: "was it moved or copied?" is what a host asks
// at the first power-on of a VM that was registered.
func (m *machine) ask(ctx *simulator.Context) {
	answered := make(chan struct{})
	m.mu.Lock()
	m.answered = answered
	m.mu.Unlock()
	show := func(val any) {
		ctx.WithLock(m.vm, func() {
			ctx.Update(m.vm, []types.PropertyChange{{Name: "runtime.question", Val: val}, {Name: "summary.runtime.question", Val: val}})
		})
	}
	show(types.VirtualMachineQuestionInfo{
		Id: questionID, Text: "This virtual machine might have been moved or copied.",
		Choice: types.ChoiceOption{ChoiceInfo: []types.BaseElementDescription{
			&types.ElementDescription{Key: "0", Description: types.Description{Label: "button.uuid.movedTheVM", Summary: "I Moved It"}},
			&types.ElementDescription{Key: "1", Description: types.Description{Label: "button.uuid.copiedTheVM", Summary: "I Copied It"}},
		}},
	})
	select {
	case <-answered:
	case <-m.s.done:
	}
	show(nil)
}

// AnswerVM answers the question.
func (h *vmHook) AnswerVM(_ *simulator.Context, r *types.AnswerVM) soap.HasFault {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.m.answered == nil || r.QuestionId != questionID {
		return &methods.AnswerVMBody{Fault_: simulator.Fault("", &types.InvalidArgument{InvalidProperty: "questionId"})}
	}
	close(h.m.answered)
	h.m.answered = nil
	return &methods.AnswerVMBody{Res: &types.AnswerVMResponse{}}
}
