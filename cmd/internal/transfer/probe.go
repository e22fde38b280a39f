package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

// Probed is what is known about a disk.
type Probed struct {
	Disk       string   `json:"disk"`
	Kind       string   `json:"kind"`
	Size       int64    `json:"size"`
	SectorSize int64    `json:"sector_size,omitempty"`
	Identity   string   `json:"identity"`
	Cold       string   `json:"cold_reads"`
	Holes      *bool    `json:"knows_holes,omitempty"`
	Detail     string   `json:"detail,omitempty"`
	Role       string   `json:"role,omitempty"`
	Warning    string   `json:"warning,omitempty"`
	State      string   `json:"state,omitempty"`
	Reason     string   `json:"reason,omitempty"`
	Run        string   `json:"run,omitempty"`
	Pass       uint32   `json:"pass,omitempty"`
	Epoch      uint64   `json:"epoch,omitempty"`
	Durable    int64    `json:"durable,omitempty"`
	Root       string   `json:"root,omitempty"`
	Skipped    int64    `json:"skipped_grains,omitempty"`
	Sampled    int64    `json:"sampled_grains,omitempty"`
	Transport  string   `json:"transport,omitempty"`
	Tracking   []string `json:"tracking,omitempty"`
	Use        string   `json:"use,omitempty"`
}

// Probe tells what is known about a disk and changes nothing. journals are those
// of this process.
func Probe(ctx context.Context, engine *mover.Engine, journals mover.StateDir, reach Reach, e *Endpoint, transport string) (*Probed, error) {
	if err := site.CheckTransport(transport); err != nil {
		return nil, usage("--transport: %w", err)
	}
	id, err := e.Pin(reach)
	if err != nil {
		return nil, err
	}
	if !e.Remote() {
		return probeHere(ctx, journals, e)
	}
	p, err := engine.Probe(ctx, e.At(reach, transport, id))
	if err != nil {
		return nil, unreachable(e, err, transport)
	}
	return probedThere(e.Text, &p), nil
}

// allWarnings are those of a source too: what a probed disk is for is not known.
func allWarnings(d *vddk.Description) string {
	both := slices.DeleteFunc([]string{d.Warning, d.SourceWarning}, func(w string) bool { return w == "" })
	return strings.Join(both, "; ")
}

func probeHere(ctx context.Context, journals mover.StateDir, e *Endpoint) (*Probed, error) {
	d, err := e.Describe(ctx)
	if err != nil {
		return nil, err
	}
	out := &Probed{
		Disk: e.Text, Kind: d.Kind, Size: d.Size, SectorSize: d.SectorSize, Identity: d.Identity, Cold: d.Coldness,
		Holes: &d.CanMap, Detail: d.Detail, Warning: allWarnings(&d), Transport: d.Transport, Tracking: d.Bitmaps,
	}
	st, err := mover.ReadJournal(journals, d.Identity)
	if errors.Is(err, mover.ErrHeld) {
		out.Reason = "its journal is in use: a run works on it now"
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	out.Reason, out.Skipped, out.Sampled = st.Reason, st.Skipped, st.Sampled
	out.journal(st.State, st.Run, st.Pass, st.Epoch, st.Durable.Len(), st.Root)
	return out, nil
}

func probedThere(text string, p *wire.Probed) *Probed {
	out := &Probed{Disk: text, Kind: p.Kind, Size: p.Size, Identity: p.Identity, Cold: p.Cold, Role: "source", Use: p.Use}
	if p.Target {
		out.Role = "target"
		out.Skipped, out.Sampled = p.Skipped, p.Sampled
		out.journal(p.State, p.Run, p.Pass, p.Epoch, p.Durable, p.Root)
	}
	return out
}

func (p *Probed) journal(state wire.State, run wire.RunID, pass uint32, epoch uint64, durable int64, root [32]byte) {
	p.State, p.Pass, p.Epoch, p.Durable = state.String(), pass, epoch, durable
	if run != (wire.RunID{}) {
		p.Run = uuid.UUID(run).String()
	}
	if (state == wire.StateVerified || state == wire.StateCopied) && p.Skipped == 0 { // else it is not the contents' root
		p.Root = fmt.Sprintf("%x", root)
	}
}
