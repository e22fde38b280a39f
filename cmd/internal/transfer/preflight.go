package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/wire"
)

// preflight asks both sides how large they are before anything is opened for
// writing: a peer that cannot be reached, or a target that is too small, is
// told at once and not after --retry.
func (t *Transfer) preflight(ctx context.Context) error {
	from, err := t.sizeOf(ctx, t.src, t.srcID)
	if err != nil {
		return err
	}
	t.size = from
	if t.dst.Missing() {
		t.create = from
		if from <= 0 {
			return usage("target %s: cannot be made, because the size of the source %s is not known or zero", t.dst.Text, t.src.Text)
		}
		if w := t.dst.rawWarning(); w != "" {
			t.warnings = append(t.warnings, w)
		}
		return nil
	}
	if t.src.Remote() && t.dst.Remote() {
		return nil // the target may be open to the source only; the order will tell
	}
	to, err := t.sizeOf(ctx, t.dst, t.dstID)
	if err != nil {
		return err
	}
	if t.Mode == wire.ModeVerify && t.Compare == 0 && from > 0 && to > 0 && from != to {
		return t.sizesDiffer(from, to, "nothing was compared")
	}
	if from > to && to > 0 {
		return wire.Errorf(wire.CodeTooSmall, "target %s has %d bytes, source %s has %d: make the target at least as large", t.dst.Text, to, t.src.Text, from)
	}
	return nil
}

// sizesDiffer is the verdict of a verify of disks that cannot be equal.
func (t *Transfer) sizesDiffer(a, b int64, compared string) error {
	return wire.Errorf(wire.CodeVerify, "the disks differ in size: %s has %d bytes, %s has %d; %s", t.src.Text, a, t.dst.Text, b, compared)
}

// sizeOf is the size of the disk, or 0 when its daemon cannot open it right
// now. It may be held by the session that this run goes on with.
func (t *Transfer) sizeOf(ctx context.Context, e *Endpoint, id wire.ID) (int64, error) {
	if !e.Remote() {
		d, err := e.Describe(ctx)
		warnings := []string{d.Warning}
		if e == t.src || t.Mode == wire.ModeVerify {
			warnings = append(warnings, d.SourceWarning)
		}
		for _, w := range warnings {
			if w != "" {
				t.warnings = append(t.warnings, e.Text+": "+w)
			}
		}
		return d.Size, err
	}
	p, err := t.engine.Probe(ctx, e.At(t.reach, t.Transport, id))
	if we, ok := errors.AsType[*wire.Error](err); ok && we.Remote {
		switch we.Code {
		case wire.CodeOpen, wire.CodeBusy, wire.CodeJournal, wire.CodeRead:
			return 0, nil
		}
	}
	return p.Size, unreachable(e, err, t.Transport)
}

// unreachable says whose fault err is, and what to look at first.
func unreachable(e *Endpoint, err error, transport string) error {
	if err == nil {
		return nil
	}
	if we, ok := errors.AsType[*wire.Error](err); ok && we.Remote {
		return &exitcode.Told{Text: e.Text + ": " + we.Text, Err: err}
	}
	if exitcode.Of(err) == exitcode.Unavailable {
		return fmt.Errorf("%s: %w; is haulbackd running there, and does the network let %s through?", e.Text, err,
			map[string]string{site.Auto: "UDP or TCP", site.QUIC: "UDP", site.TLS: "TCP"}[transport])
	}
	return fmt.Errorf("%s: %w", e.Text, err)
}
