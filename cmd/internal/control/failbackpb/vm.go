package failbackpb

import (
	"maps"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// each translates a list; nothing stays nil.
func each[A, B any](list []A, one func(A) B) (out []B) {
	for i := range list {
		out = append(out, one(list[i]))
	}
	return out
}

func fromRef(r hostctl.Ref) *controlv1.VmRef {
	if r == (hostctl.Ref{}) {
		return nil
	}
	return &controlv1.VmRef{Host: r.Host, Id: r.ID, Uuid: r.UUID, Name: r.Name}
}

func toRef(m *controlv1.VmRef) hostctl.Ref {
	return hostctl.Ref{Host: m.GetHost(), ID: m.GetId(), UUID: m.GetUuid(), Name: m.GetName()}
}

func fromQuery(q hostctl.Query) *controlv1.VmQuery {
	if q == (hostctl.Query{}) {
		return nil
	}
	return &controlv1.VmQuery{Uuid: q.UUID, Id: q.ID, Path: q.Path, Name: q.Name}
}

func toQuery(m *controlv1.VmQuery) hostctl.Query {
	return hostctl.Query{UUID: m.GetUuid(), ID: m.GetId(), Path: m.GetPath(), Name: m.GetName()}
}

func fromPlacement(p hostctl.Placement) *controlv1.Placement {
	if p == (hostctl.Placement{}) {
		return nil
	}
	return &controlv1.Placement{Datacenter: p.Datacenter, Folder: p.Folder, Pool: p.Pool, Server: p.Server, Datastore: p.Datastore}
}

func toPlacement(m *controlv1.Placement) hostctl.Placement {
	return hostctl.Placement{Datacenter: m.GetDatacenter(), Folder: m.GetFolder(), Pool: m.GetPool(), Server: m.GetServer(), Datastore: m.GetDatastore()}
}

func fromDisk(d hostctl.Disk) *controlv1.VirtualDisk {
	return &controlv1.VirtualDisk{
		Key: d.Key, Label: d.Label, Uuid: d.UUID, File: d.File, SizeBytes: d.Size, Datastore: d.Datastore,
		Thin: d.Thin, ChangeId: d.ChangeID, Unfit: d.Unfit, Adapter: d.Adapter,
	}
}

func toDisk(m *controlv1.VirtualDisk) hostctl.Disk {
	return hostctl.Disk{
		Key: m.GetKey(), Label: m.GetLabel(), UUID: m.GetUuid(), File: m.GetFile(), Size: m.GetSizeBytes(), Datastore: m.GetDatastore(),
		Thin: m.GetThin(), ChangeID: m.GetChangeId(), Unfit: m.GetUnfit(), Adapter: m.GetAdapter(),
	}
}

func fromSnapshot(s hostctl.Snapshot) *controlv1.VmSnapshot {
	return &controlv1.VmSnapshot{Id: s.ID, Name: s.Name, Text: s.Text, Parent: s.Parent, Created: jobpb.FromTime(s.Created), Disks: each(s.Disks, fromDisk)}
}

func toSnapshot(m *controlv1.VmSnapshot) hostctl.Snapshot {
	return hostctl.Snapshot{
		ID: m.GetId(), Name: m.GetName(), Text: m.GetText(), Parent: m.GetParent(), Created: jobpb.ToTime(m.GetCreated()), Disks: each(m.GetDisks(), toDisk),
	}
}

func fromNIC(n hostctl.NIC) *controlv1.Nic {
	return &controlv1.Nic{Key: n.Key, Label: n.Label, Network: n.Network, Mac: n.MAC, Model: n.Model, Connected: n.Connected}
}

func toNIC(m *controlv1.Nic) hostctl.NIC {
	return hostctl.NIC{Key: m.GetKey(), Label: m.GetLabel(), Network: m.GetNetwork(), MAC: m.GetMac(), Model: m.GetModel(), Connected: m.GetConnected()}
}

func fromVM(v *hostctl.VM) *controlv1.Vm {
	if v == nil {
		return nil
	}
	return &controlv1.Vm{
		Ref: fromRef(v.Ref), Bios: v.BIOS, Path: v.Path, Power: powers.code(v.Power), Tools: v.Tools, Question: v.Question, Busy: v.Busy,
		Disks: each(v.Disks, fromDisk), Snapshots: each(v.Snapshots, fromSnapshot), Current: v.Current, Nics: each(v.NICs, fromNIC),
		Cpus: int32(v.CPUs), MemoryMib: v.MemoryMiB, Firmware: v.Firmware, GuestOs: v.GuestOS, CanTrack: v.CanTrack, Tracking: v.Tracking,
		Marks: maps.Clone(v.Marks), Disabled: append([]string(nil), v.Disabled...), Version: v.Version,
	}
}

func toVM(m *controlv1.Vm) *hostctl.VM {
	if m == nil {
		return nil
	}
	return &hostctl.VM{
		Ref: toRef(m.Ref), BIOS: m.Bios, Path: m.Path, Power: powers.word(m.Power), Tools: m.Tools, Question: m.Question, Busy: m.Busy,
		Disks: each(m.Disks, toDisk), Snapshots: each(m.Snapshots, toSnapshot), Current: m.Current, NICs: each(m.Nics, toNIC),
		CPUs: int(m.Cpus), MemoryMiB: m.MemoryMib, Firmware: m.Firmware, GuestOS: m.GuestOs, CanTrack: m.CanTrack, Tracking: m.Tracking,
		Marks: m.Marks, Disabled: m.Disabled, Version: m.Version,
	}
}

// FromPair is the message of a pair.
func FromPair(p *failback.Pair) *controlv1.Pair {
	out := &controlv1.Pair{
		Name: p.Name, Original: fromRef(p.Original), Replica: fromRef(p.Replica), State: states.code(p.State), Since: jobpb.FromTime(p.Since),
		Held: p.Held, Failback: p.Failback, Excluded: each(p.Excluded, fromRef), Revision: p.Revision,
		Disks: each(p.Disks, func(d failback.DiskPair) *controlv1.DiskPair {
			return &controlv1.DiskPair{Replica: d.Replica, Original: d.Original}
		}),
	}
	if p.Former != nil {
		out.Former = fromRef(*p.Former)
	}
	return mended(out)
}

// maxList bounds what one request makes of a list.
const maxList = 256

// ToPair is the pair in a message; field is what the caller calls the message.
func ToPair(field string, m *controlv1.Pair) (failback.Pair, error) {
	if m == nil {
		return failback.Pair{}, jobpb.Invalid(field, "it is missing")
	}
	if n := max(len(m.Disks), len(m.Excluded)); n > maxList {
		return failback.Pair{}, jobpb.Invalid(field, "%d disks or excluded VMs, %d at most", n, maxList)
	}
	state, err := states.known(field+".state", m.State)
	if err != nil {
		return failback.Pair{}, err
	}
	out := failback.Pair{
		Name: m.Name, Original: toRef(m.Original), Replica: toRef(m.Replica), State: state, Since: jobpb.ToTime(m.Since),
		Held: m.Held, Failback: m.Failback, Excluded: each(m.Excluded, toRef), Revision: m.Revision,
		Disks: each(m.Disks, func(d *controlv1.DiskPair) failback.DiskPair {
			return failback.DiskPair{Replica: d.GetReplica(), Original: d.GetOriginal()}
		}),
	}
	if m.Former != nil {
		former := toRef(m.Former)
		out.Former = &former
	}
	return out, nil
}
