package failbacks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/jobs"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// Check implements failback.Mover.
func (m *Mover) Check(ctx context.Context, host string, disks ...failback.Place) []hostctl.Problem {
	h, err := m.host(host)
	if err != nil {
		return problem(err, "")
	}
	var list []hostctl.Problem
	if h.Mover == Self {
		list = m.checkOwn(ctx, h)
	} else {
		list = m.checkPeer(ctx, h)
	}
	seen := map[string]bool{}
	for i := range disks {
		store, _, _ := strings.Cut(disks[i].Disk.File, "]") // one disk of each is enough
		if len(list) == 0 && !seen[store] {
			seen[store] = true
			list = m.checkDisk(ctx, h, &disks[i])
		}
	}
	return list
}

// checkDisk looks whether a disk is where the export says its datastore is. One
// that is there and cannot be opened now, as its VM runs, is as it should be.
func (m *Mover) checkDisk(ctx context.Context, h Host, at *failback.Place) []hostctl.Problem {
	remedy := fmt.Sprintf("write into datastores of [[export]] name = %q, in the configuration of the daemon that has it, where that datastore is mounted", h.Export)
	if h.OpenStorage != "" {
		remedy = fmt.Sprintf("name the profile of that cluster in openstorage of [[export]] name = %q, in the configuration of the daemon that has it", h.Export)
	}
	e, err := m.place(at)
	if err != nil {
		return problem(err, remedy)
	}
	var wrong bool
	if e.here {
		var d mover.Disk
		if own, err := m.export(h); err != nil || own.Host.VDDK != "" {
			return nil // VMware's library asks the host itself
		}
		if d, err = e.Open(ctx, mover.ReadOnly); err == nil {
			err = d.Close()
		}
		wrong = errors.Is(err, fs.ErrNotExist) || errors.Is(err, hostctl.ErrNotFound)
	} else {
		var we *wire.Error
		_, err = transfer.ProbePlace(ctx, m.Engine, m.Reach, e.Place, m.transport())
		wrong = errors.As(err, &we) && (we.Code == wire.CodeExport || we.Code == wire.CodeOpen && (strings.Contains(err.Error(), syscall.ENOENT.Error()) || h.OpenStorage != "" && strings.Contains(err.Error(), "NotFound")))
	}
	if !wrong {
		return nil
	}
	f := jobs.Classify(err)
	return []hostctl.Problem{{
		Reason: job.ReasonEndpoint, Remedy: remedy,
		Text: report.OneLine(fmt.Sprintf("host %q: disk %s of %s is not where its export has it: %s", h.Name, at.Disk.File, at.VM.Name, f.Text)),
	}}
}

// checkPeer asks the daemon of h for its export.
func (m *Mover) checkPeer(ctx context.Context, h Host) []hostctl.Problem {
	p, err := m.peer(h)
	if err != nil {
		return problem(err, "")
	}
	at := &transfer.Place{Text: "haulback://" + p.Address + "/" + h.Export, Address: p.Address, Peer: p.Name, Export: h.Export}
	probed, err := transfer.ProbePlace(ctx, m.Engine, m.Reach, at, m.transport())
	if err == nil && probed.Kind == "host" {
		return nil
	}
	remedy := m.mend(h, err)
	if err == nil {
		err = wrong(job.ReasonEndpoint, 0, "export %q of %s is one disk, not those of a host", h.Export, h.Mover)
	}
	return problem(err, remedy)
}

// mend says what has to be done about err at the daemon of h.
func (m *Mover) mend(h Host, err error) string {
	var e *wire.Error
	if err != nil && (!errors.As(err, &e) || e.Code != wire.CodeExport && e.Code != wire.CodeUnauthorized) {
		return fmt.Sprintf("start haulbackd at %s, let the network through to it, and see: haulback selfcheck", h.Mover)
	}
	id := "the ID of this daemon"
	if self, err := m.Reach.Self(); err == nil {
		id = self.String()
	}
	return fmt.Sprintf("at %s: haulback peer add %s --name NAME, and in its configuration [[export]] name = %q, role = \"host\", peers = [\"NAME\"], controllers = [\"NAME\"]", h.Mover, id, h.Export)
}

// checkOwn looks at the directories of an export of this daemon, or at the endpoint
// of its profile.
func (m *Mover) checkOwn(ctx context.Context, h Host) (list []hostctl.Problem) {
	e, err := m.export(h)
	if err != nil {
		return problem(err, "")
	}
	if profile := e.Host.OpenStorage; profile != "" || h.OpenStorage != "" {
		return m.checkCluster(ctx, h, profile)
	}
	for name, dir := range e.Host.Datastores {
		if _, err := os.ReadDir(dir); err != nil {
			if pe, ok := errors.AsType[*fs.PathError](err); ok {
				err = pe.Err
			}
			list = append(list, hostctl.Problem{
				Reason: job.ReasonEndpoint, Text: fmt.Sprintf("host %q: datastore %s: %s: %v", h.Name, name, dir, err),
				Remedy: "mount it there, or write into [[export]] where it is",
			})
		}
	}
	return list
}

// checkCluster looks whether what the profile of h's export attaches appears here.
func (m *Mover) checkCluster(ctx context.Context, h Host, profile string) []hostctl.Problem {
	if (profile == "") != (h.OpenStorage == "") {
		return problem(wrong(job.ReasonEndpoint, exitcode.Usage, "host %q and its export %q: one is a volume cluster, the other is not", h.Name, h.Export),
			"name the export that has its disks in export of the [[host]]")
	}
	if err := m.Here(ctx, profile); err != nil {
		return problem(fmt.Errorf("host %q: %w", h.Name, err), fmt.Sprintf("the endpoint of [[openstorage]] name = %q has to be that of this machine's node", profile))
	}
	return nil
}

func problem(err error, remedy string) []hostctl.Problem {
	f := jobs.Classify(err)
	return []hostctl.Problem{{Reason: f.Reason, Text: report.OneLine(f.Text), Remedy: remedy}}
}

// Registered implements failback.Mover: VMware's library reaches the disks of
// VMs that are in the inventory.
func (m *Mover) Registered(host string) bool {
	h, err := m.host(host)
	if err != nil {
		return false
	}
	if h.Mover != Self {
		return h.Registered
	}
	e, err := m.export(h)
	return err == nil && e.Host.VDDK != ""
}
