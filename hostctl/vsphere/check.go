package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// The reasons of problems: those of package failback of the same words.
const (
	reasonPrivilege = "PRIVILEGE_MISSING"
	reasonHost      = "HOST_UNAVAILABLE"
	reasonRefused   = "HOST_REFUSED"
	reasonQuestion  = "VM_QUESTION"
	reasonAbility   = "NOT_SUPPORTED"
)

// onVM and onStore are the privileges of each need, on the VM (where VMs are to
// be made: on the datacenter) and on the datastores. They are those of
// facts/vsphere.md section 5.
var (
	onVM = map[hostctl.Need][]string{
		hostctl.NeedPower:    {"VirtualMachine.Interact.PowerOn", "VirtualMachine.Interact.PowerOff"},
		hostctl.NeedSnapshot: {"VirtualMachine.State.CreateSnapshot", "VirtualMachine.State.RemoveSnapshot", "VirtualMachine.State.RevertToSnapshot"},
		hostctl.NeedTrack:    {"VirtualMachine.Config.ChangeTracking"},
		hostctl.NeedMark:     {"VirtualMachine.Config.AdvancedConfig"},
		hostctl.NeedRead:     {"VirtualMachine.Provisioning.DiskRandomRead", "VirtualMachine.Provisioning.GetVmFiles"},
		hostctl.NeedWrite:    {"VirtualMachine.Provisioning.DiskRandomAccess"},
		hostctl.NeedCreate: {
			"VirtualMachine.Inventory.Create", "VirtualMachine.Inventory.Delete", "VirtualMachine.Inventory.Register", "VirtualMachine.Inventory.Unregister",
			"VirtualMachine.Config.AddNewDisk", "VirtualMachine.Config.AddExistingDisk", "VirtualMachine.Config.RemoveDisk",
			"VirtualMachine.Config.AddRemoveDevice", "VirtualMachine.Config.EditDevice", "VirtualMachine.Config.AdvancedConfig",
			"Resource.AssignVMToPool", "Network.Assign",
		},
		hostctl.NeedGuard: {"Global.DisableMethods", "Global.EnableMethods"},
	}
	onStore = map[hostctl.Need][]string{
		hostctl.NeedSnapshot: {"Datastore.AllocateSpace"},
		hostctl.NeedCreate:   {"Datastore.AllocateSpace", "Datastore.Browse", "Datastore.FileManagement"},
	}
)

// subject is an object with the privileges that are needed on it.
type subject struct {
	ref   types.ManagedObjectReference
	name  string
	needs []string
}

// Check implements hostctl.Checker.
func (c *Client) Check(ctx context.Context, ref hostctl.Ref, needs []hostctl.Need) (all []hostctl.Problem, err error) {
	var subjects []subject
	if ref == (hostctl.Ref{}) || ref == (hostctl.Ref{Host: ref.Host}) {
		subjects, err = c.root(ctx, needs)
	} else {
		vm, o, err := c.resolve(ctx, ref)
		if err != nil {
			return nil, err
		}
		all, subjects, err = c.checkVM(ctx, &vm, &o, needs)
		if err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	missing, err := c.privileges(ctx, subjects)
	return append(all, missing...), err
}

// root are the objects where VMs are made: the configured datacenter, or all.
func (c *Client) root(ctx context.Context, needs []hostctl.Need) (all []subject, err error) {
	want := tidy(slices.Concat(wanted(onVM, needs), wanted(onStore, needs)))
	err = c.observe(ctx, "look at the datacenters", func(l *link) error {
		dcs, err := none(find.NewFinder(l.Client).DatacenterList(ctx, orAll(c.cfg.Datacenter)))
		all = nil
		for _, dc := range dcs {
			all = append(all, subject{dc.Reference(), "datacenter " + clean(dc.Name()), want})
		}
		if err == nil && len(dcs) == 0 {
			return c.notFound("datacenter " + orAll(c.cfg.Datacenter))
		}
		return err
	})
	return all, err
}

func orAll(pattern string) string {
	if pattern == "" {
		return "*"
	}
	return pattern
}

func wanted(table map[hostctl.Need][]string, needs []hostctl.Need) (all []string) {
	for _, n := range needs {
		all = append(all, table[n]...)
	}
	return tidy(all)
}

// checkVM looks at a VM, its host and its datastores.
func (c *Client) checkVM(ctx context.Context, vm *hostctl.VM, o *mo.VirtualMachine, needs []hostctl.Need) (all []hostctl.Problem, subjects []subject, err error) {
	all = stateProblems(vm, o, needs)
	subjects = append(subjects, subject{vmRef(vm.ID), vm.Name, wanted(onVM, needs)})
	var host []hostctl.Problem
	err = c.observe(ctx, "look at the host of "+vm.Name, func(l *link) error {
		pc := property.DefaultCollector(l.Client)
		subjects = subjects[:1]
		if o.Runtime.Host != nil {
			var h mo.HostSystem
			if err := pc.RetrieveOne(ctx, *o.Runtime.Host, []string{"name", "runtime"}, &h); err != nil && !is[*types.NoPermission](err) {
				return err
			}
			host = serverProblems(vm, &h)
		}
		if want := wanted(onStore, needs); len(want) > 0 && len(o.Datastore) > 0 {
			var some []mo.Datastore
			if err := pc.Retrieve(ctx, o.Datastore, []string{"name", "summary.accessible"}, &some); err != nil {
				return err
			}
			for _, d := range some {
				subjects = append(subjects, subject{d.Self, "datastore " + clean(d.Name), want})
			}
		}
		return nil
	})
	return append(all, host...), subjects, err
}

// stateProblems are those that the VM itself shows.
func stateProblems(vm *hostctl.VM, o *mo.VirtualMachine, needs []hostctl.Need) (all []hostctl.Problem) {
	if s := o.Runtime.ConnectionState; s != types.VirtualMachineConnectionStateConnected && s != "" {
		all = append(all, hostctl.Problem{Reason: reasonHost, Text: fmt.Sprintf("%s is %s", vm.Name, clean(string(s))), Remedy: "look at its host and its datastore"})
	}
	if vm.Question != "" {
		all = append(all, hostctl.Problem{Reason: reasonQuestion, Text: fmt.Sprintf("%s waits for an answer to %q", vm.Name, vm.Question), Remedy: "answer it on the host"})
	}
	if o.Config != nil && o.Config.Template {
		all = append(all, hostctl.Problem{Reason: reasonRefused, Text: vm.Name + " is a template", Remedy: "make it a VM"})
	}
	if slices.Contains(needs, hostctl.NeedSnapshot) && o.Runtime.ConsolidationNeeded {
		all = append(all, hostctl.Problem{Reason: reasonRefused, Text: "the disks of " + vm.Name + " need consolidation", Remedy: "consolidate them on the host"})
	}
	if slices.Contains(needs, hostctl.NeedTrack) && !vm.CanTrack {
		all = append(all, hostctl.Problem{Reason: reasonAbility, Text: vm.Name + " has virtual hardware that cannot track changes", Remedy: "upgrade it to version 7 or later"})
	}
	if major := majorOf(vm.Version); major > 0 && major < oldest {
		all = append(all, hostctl.Problem{Reason: reasonAbility, Text: fmt.Sprintf("%s runs on %s", vm.Name, vm.Version), Remedy: fmt.Sprintf("use a host of version %d or later", oldest)})
	}
	return all
}

// oldest is the oldest major version of a host that is worked with: the disk
// library that reads and writes on it knows no older ones.
const oldest = 6

// majorOf is 8 of "VMware ESXi 8.0.2 build-1"; 0 when it is not told.
func majorOf(version string) int {
	for _, f := range strings.Fields(version) {
		if major, _, ok := strings.Cut(f, "."); ok {
			n, _ := strconv.Atoi(major)
			return n
		}
	}
	return 0
}

// serverProblems are those of the VM's host.
func serverProblems(vm *hostctl.VM, h *mo.HostSystem) (all []hostctl.Problem) {
	where := fmt.Sprintf("host %s of %s", clean(h.Name), vm.Name)
	if h.Runtime.InMaintenanceMode {
		all = append(all, hostctl.Problem{Reason: reasonRefused, Text: where + " is in maintenance mode", Remedy: "end its maintenance, or move the VM"})
	}
	if s := h.Runtime.ConnectionState; s != types.HostSystemConnectionStateConnected && s != "" {
		all = append(all, hostctl.Problem{Reason: reasonHost, Text: where + " is " + clean(string(s)), Remedy: "connect it to its vCenter again"})
	}
	return all
}

// privileges makes one problem of each privilege that is missing on an object.
func (c *Client) privileges(ctx context.Context, subjects []subject) (all []hostctl.Problem, err error) {
	err = c.observe(ctx, "look at the privileges of "+c.cfg.User, func(l *link) error {
		all = nil
		m := object.NewAuthorizationManager(l.Client)
		for _, s := range subjects {
			if !l.IsVC() { // nothing moves a VM of a bare ESXi: see Hold
				s.needs = slices.DeleteFunc(slices.Clone(s.needs), func(n string) bool { return strings.HasSuffix(n, "ableMethods") })
			}
			if len(s.needs) == 0 {
				continue
			}
			r, err := m.HasUserPrivilegeOnEntities(ctx, []types.ManagedObjectReference{s.ref}, l.user, s.needs)
			if err != nil {
				return err
			}
			for _, id := range lacking(r, s.needs) {
				all = append(all, hostctl.Problem{
					Reason: reasonPrivilege,
					Text:   fmt.Sprintf("host %s: %s lacks %s on %s", c.cfg.Name, c.cfg.User, id, s.name),
					Remedy: "give its role that",
				})
			}
		}
		return nil
	})
	return all, err
}

// lacking are those of want that an answer does not grant. What it does not
// mention is not granted.
func lacking(r []types.EntityPrivilege, want []string) (missing []string) {
	granted := map[string]bool{}
	for _, e := range r {
		for _, p := range e.PrivAvailability {
			if p.IsGranted {
				granted[p.PrivId] = true
			}
		}
	}
	for _, id := range want {
		if !granted[id] {
			missing = append(missing, id)
		}
	}
	return missing
}
