package hosttest_test

import (
	"context"
	"testing"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/hosttest"
)

// bytesOf reaches the disks of a Fake as a guest.
type bytesOf struct{ *hosttest.Fake }

func (b bytesOf) index(vm hostctl.VM, d hostctl.Disk) int {
	for i := range vm.Disks {
		if vm.Disks[i].UUID == d.UUID {
			return i
		}
	}
	return -1
}

func (b bytesOf) ReadDisk(_ *testing.T, vm hostctl.VM, d hostctl.Disk, off int64, p []byte) {
	copy(p, b.Bytes(vm.UUID, b.index(vm, d))[off:])
}

func (b bytesOf) WriteDisk(t *testing.T, vm hostctl.VM, d hostctl.Disk, off int64, p []byte) {
	was, _ := b.VM(vm.UUID)
	b.Change(vm.UUID, func(vm *hostctl.VM) { vm.Power = hostctl.On })
	if err := b.Write(vm.UUID, b.index(vm, d), off, p); err != nil {
		t.Fatal(err)
	}
	b.Change(vm.UUID, func(vm *hostctl.VM) { vm.Power = was.Power })
}

// TestFake is the conformance suite over the host in memory.
func TestFake(t *testing.T) {
	hosttest.TestHost(t, func(t *testing.T) *hosttest.Kit {
		f := hosttest.NewFake("fake", &hosttest.Log{})
		f.Networks = []string{"lan", "other"}
		nics := []hostctl.NIC{{Key: 4000, Label: "net0", Network: "lan", Connected: true}}
		vm := f.Add(hostctl.VM{Ref: hostctl.Ref{Name: "web"}, NICs: nics}, make([]byte, 8<<20), make([]byte, 8<<20))
		f.Add(hostctl.VM{Ref: hostctl.Ref{Name: "twin"}})
		f.Add(hostctl.VM{Ref: hostctl.Ref{Name: "twin"}, Path: "[ds] twin2/twin2.vmx"})
		poor := f.Host()
		poor.Checker = poorChecker{}
		return &hosttest.Kit{
			Host: f.Host(), VM: hostctl.Query{UUID: vm.UUID}, Twin: hostctl.Query{Name: "twin"}, Bytes: bytesOf{f}, Network: "other",
			Lose: func() { f.Plan(hosttest.Fault{When: hosttest.Lost}) },
			Poor: poor, Lacks: "VirtualMachine.State.CreateSnapshot",
		}
	})
}

type poorChecker struct{}

func (poorChecker) Check(context.Context, hostctl.Ref, []hostctl.Need) ([]hostctl.Problem, error) {
	return []hostctl.Problem{{Reason: "PRIVILEGE_MISSING", Text: "the login lacks VirtualMachine.State.CreateSnapshot", Remedy: "give it"}}, nil
}
