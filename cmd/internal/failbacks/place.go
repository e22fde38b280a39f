package failbacks

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/hostdisk"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
)

// Self is the Mover of a Host whose disks this daemon reaches.
const Self = "self"

// Host says how the disks of a host are reached.
type Host struct {
	Name   string // in failback.Place
	Mover  string // Self, or the name of a paired peer
	Export string // of role "host", there
	// Registered says that the peer uses VMware's library, which needs the VM in the
	// inventory; of this daemon its own configuration says so.
	Registered bool
	// OpenStorage is the profile of a volume cluster; empty: a vSphere host.
	OpenStorage string
}

// wrong is a failure that somebody has to see to.
func wrong(reason string, exit exitcode.Code, format string, args ...any) *job.Failure {
	return &job.Failure{Reason: reason, Text: report.OneLine(fmt.Sprintf(format, args...)), Retry: job.RetryAfterReconcile, Exit: int(exit)}
}

// host is the Host called name.
func (m *Mover) host(name string) (Host, error) {
	hosts := m.Hosts()
	if h, ok := hosts[name]; ok {
		return h, nil
	}
	return Host{}, wrong(job.ReasonEndpoint, exitcode.Usage, "host %q has no mover; name it in [[host]] of the configuration; there are: %s",
		name, strings.Join(slices.Sorted(maps.Keys(hosts)), ", "))
}

// export is an export of this daemon that h uses.
func (m *Mover) export(h Host) (*config.Export, error) {
	for _, e := range m.Exports() {
		if e.Name == h.Export && e.Host != nil {
			return &e, nil
		}
	}
	return nil, wrong(job.ReasonEndpoint, exitcode.Usage, "host %q: this daemon has no export %q of role \"host\"; write [[export]] name = %q, role = \"host\", %s into its configuration",
		h.Name, h.Export, h.Export, map[bool]string{true: "openstorage", false: "datastores or vddk"}[h.OpenStorage != ""])
}

// peer is the daemon that reaches the disks of h.
func (m *Mover) peer(h Host) (site.Peer, error) {
	peers, err := m.Reach.Peers()
	if err != nil {
		return site.Peer{}, err
	}
	p, ok := peers.Named(h.Mover)
	switch {
	case !ok:
		return p, wrong(job.ReasonAuth, exitcode.Auth, "host %q: its mover %q is not paired with this daemon; run: haulback peer add ID --name %s --address HOST:PORT", h.Name, h.Mover, h.Mover)
	case p.Address == "":
		return p, wrong(job.ReasonEndpoint, exitcode.Usage, "host %q: the address of its mover %q is not known; run: haulback peer add %v --name %s --address HOST:PORT", h.Name, h.Mover, p.ID, h.Mover)
	}
	return p, nil
}

// end is one disk of a Move.
type end struct {
	*transfer.Place
	peer site.Peer // of a disk elsewhere
	here bool
}

// place finds the disk of p.
func (m *Mover) place(p *failback.Place) (*end, error) {
	h, err := m.host(p.VM.Host)
	if err != nil {
		return nil, err
	}
	n, err := hostdisk.ParseFile(p.Disk.File)
	if err == nil {
		n.VM, n.Snapshot = p.VM.ID, p.Snapshot
		n, err = hostdisk.Parse(n.String()) // its handles too
	}
	if err != nil {
		return nil, wrong(job.ReasonEndpoint, exitcode.Usage, "disk %s %q of %s (%s): %v", p.Disk.Label, p.Disk.File, p.VM.Name, p.VM.ID, err)
	}
	if h.Mover == Self {
		return m.own(h, n)
	}
	peer, err := m.peer(h)
	if err != nil {
		return nil, err
	}
	name := h.Export + "/" + n.String()
	return &end{peer: peer, Place: &transfer.Place{
		Text: "haulback://" + peer.Address + "/" + name + "?peer=" + peer.Name, Address: peer.Address, Peer: peer.Name, Export: name,
	}}, nil
}

// own is a disk that this daemon opens.
func (m *Mover) own(h Host, n hostdisk.Name) (*end, error) {
	e, err := m.export(h)
	if err != nil {
		return nil, err
	}
	table := *e.Host
	table.Log = m.Log
	leaf, err := table.Disk(n)
	if err != nil {
		return nil, wrong(job.ReasonEndpoint, exitcode.Usage, "export %q: %v", e.Name, err)
	}
	return &end{here: true, Place: &transfer.Place{Text: "export:" + e.Name + "/" + n.String(), Open: frozen(leaf), Unit: e.Name + "/" + leaf.Unit}}, nil
}

// frozen keeps a snapshot's disk from being written.
func frozen(l mover.Leaf) mover.OpenDisk {
	if !l.Frozen {
		return l.Open
	}
	return mover.ReadOnlyDisk(l.Open, l.Unit)
}
