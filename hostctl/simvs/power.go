package simvs

import (
	"errors"
	"os"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	on        = types.VirtualMachinePowerStatePoweredOn
	off       = types.VirtualMachinePowerStatePoweredOff
	suspended = types.VirtualMachinePowerStateSuspended
)

// PowerOnVMTask starts the guest.
func (h *vmHook) PowerOnVMTask(ctx *simulator.Context, _ *types.PowerOnVM_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "PowerOnVM_Task", "VirtualMachine.powerOn", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return nil, h.m.setPower(c, on)
	})
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: ref}}
}

// PowerOffVMTask takes its power away.
func (h *vmHook) PowerOffVMTask(ctx *simulator.Context, _ *types.PowerOffVM_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "PowerOffVM_Task", "VirtualMachine.powerOff", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return nil, h.m.setPower(c, off)
	})
	return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: ref}}
}

// SuspendVMTask stops it and keeps its memory.
func (h *vmHook) SuspendVMTask(ctx *simulator.Context, _ *types.SuspendVM_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "SuspendVM_Task", "VirtualMachine.suspend", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		return nil, h.m.setPower(c, suspended)
	})
	return &methods.SuspendVM_TaskBody{Res: &types.SuspendVM_TaskResponse{Returnval: ref}}
}

// ResetVMTask turns it off and on.
func (h *vmHook) ResetVMTask(ctx *simulator.Context, _ *types.ResetVM_Task) soap.HasFault {
	ref := h.s.start(ctx, h.m.ref, "ResetVM_Task", "VirtualMachine.reset", h.m, func(c *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		if fault := h.m.setPower(c, off); fault != nil {
			return nil, fault
		}
		return nil, h.m.setPower(c, on)
	})
	return &methods.ResetVM_TaskBody{Res: &types.ResetVM_TaskResponse{Returnval: ref}}
}

// ShutdownGuest asks the guest, which listens when its tools run.
func (h *vmHook) ShutdownGuest(ctx *simulator.Context, _ *types.ShutdownGuest) soap.HasFault {
	sw := h.s.switches()
	h.m.mu.RLock()
	state, tools := h.m.power, h.m.tools && !sw.NoTools
	h.m.mu.RUnlock()
	switch {
	case state != on:
		fault := &types.InvalidPowerState{RequestedState: on, ExistingState: state}
		return &methods.ShutdownGuestBody{Fault_: simulator.Fault(faultText(fault), fault)}
	case !tools:
		return &methods.ShutdownGuestBody{Fault_: simulator.Fault("tools unavailable", &types.ToolsUnavailable{})}
	}
	if !sw.IgnoreShutdown {
		c := *ctx
		h.s.work.Go(func() {
			h.s.wait(h.s.slow("ShutdownGuest"))
			h.m.op.Lock()
			defer h.m.op.Unlock()
			_ = h.m.setPower(&c, off) // it may be off by now
		})
	}
	return &methods.ShutdownGuestBody{Res: &types.ShutdownGuestResponse{}}
}

// setPower changes the state, with all that belongs to it. A task calls it.
func (m *machine) setPower(ctx *simulator.Context, want types.VirtualMachinePowerState) types.BaseMethodFault {
	sw := m.s.switches()
	if want == on && sw.PowerOnQuestion {
		m.ask(ctx)
	}
	m.mu.Lock()
	if m.power == want || want == suspended && m.power != on {
		state := m.power
		m.mu.Unlock()
		return &types.InvalidPowerState{RequestedState: want, ExistingState: state}
	}
	if want == on {
		if fault := m.openFiles(); fault != nil {
			m.mu.Unlock()
			return fault
		}
		if sw.EpochResetOnPowerOn {
			m.loseEpoch()
		}
		m.stun()
	} else {
		m.shutFiles()
	}
	m.power = want
	m.relock()
	m.mu.Unlock()
	m.showPower(ctx, want, m.tools && !sw.NoTools)
	return nil
}

// loseEpoch forgets the change tracking: a new one begins.
func (m *machine) loseEpoch() {
	for _, d := range m.disks {
		d.track.off()
	}
}

func (m *machine) openFiles() types.BaseMethodFault {
	for _, d := range m.disks {
		if isLocked(d.leaf.flat()) || isLocked(d.leaf.path()) {
			m.shutFiles()
			return &types.FileLocked{FileFault: types.FileFault{File: d.leaf.name()}}
		}
		f, err := os.OpenFile(d.leaf.flat(), os.O_RDWR, 0)
		switch {
		case errors.Is(err, os.ErrNotExist) || err == nil && !exists(d.leaf.path()):
			m.shutFiles()
			return &types.FileNotFound{FileFault: types.FileFault{File: d.leaf.name()}}
		case err != nil:
			m.shutFiles()
			return fileFault(d.leaf.name())
		}
		d.file = f
	}
	return nil
}

func (m *machine) shutFiles() {
	for _, d := range m.disks {
		if d.file != nil {
			d.file.Close()
			d.file = nil
		}
	}
}

// closeFiles is the end of the server.
func (m *machine) closeFiles() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shutFiles()
	m.power = off
	m.relock()
}

// showPower writes the state into the VM's properties.
func (m *machine) showPower(ctx *simulator.Context, state types.VirtualMachinePowerState, tools bool) {
	status, running := types.VirtualMachineToolsStatusToolsNotRunning, types.VirtualMachineToolsRunningStatusGuestToolsNotRunning
	guest := string(types.VirtualMachineGuestStateNotRunning)
	var boot any
	if state == on {
		boot = time.Now()
		if tools {
			status, running = types.VirtualMachineToolsStatusToolsOk, types.VirtualMachineToolsRunningStatusGuestToolsRunning
			guest = string(types.VirtualMachineGuestStateRunning)
		}
	}
	ctx.WithLock(m.vm, func() {
		m.changeDevices(ctx, func(list object.VirtualDeviceList) {
			for _, device := range list {
				if c := device.GetVirtualDevice().Connectable; c != nil {
					c.Connected = state == on && c.StartConnected
				}
			}
		})
		ctx.Update(m.vm, []types.PropertyChange{
			{Name: "runtime.powerState", Val: state},
			{Name: "summary.runtime.powerState", Val: state},
			{Name: "runtime.bootTime", Val: boot},
			{Name: "summary.runtime.bootTime", Val: boot},
			{Name: "guest.toolsStatus", Val: status},
			{Name: "guest.toolsRunningStatus", Val: string(running)},
			{Name: "guest.guestState", Val: guest},
		})
	})
	e := m.event()
	switch state {
	case on:
		postEvents(ctx, &types.VmStartingEvent{VmEvent: e}, &types.VmPoweredOnEvent{VmEvent: e})
	case off:
		postEvents(ctx, &types.VmStoppingEvent{VmEvent: e}, &types.VmPoweredOffEvent{VmEvent: e})
	case suspended:
		postEvents(ctx, &types.VmSuspendingEvent{VmEvent: e}, &types.VmSuspendedEvent{VmEvent: e})
	}
}
