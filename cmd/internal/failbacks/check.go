package failbacks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/haulback/haulback/cmd/internal/jobs"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/wire"
)

// Check implements failback.Mover.
func (m *Mover) Check(ctx context.Context, host string) []hostctl.Problem {
	h, err := m.host(host)
	if err != nil {
		return problem(err, "")
	}
	if h.Mover == Self {
		return m.checkOwn(h)
	}
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

// checkOwn looks at the directories of an export of this daemon.
func (m *Mover) checkOwn(h Host) (list []hostctl.Problem) {
	e, err := m.export(h)
	if err != nil {
		return problem(err, "")
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
