package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// pass is one pass, told while it runs.
func (t *Transfer) pass(ctx context.Context, name string, n uint32, full bool) (mover.Report, error) {
	p := &mover.Progress{Event: func(text string) { t.out.Remark(report.Event, t.voice(text)) }, Different: t.Different}
	counters := func() wire.Counters { return t.whole(p.Counters()) }
	stop := report.Follow(t.out, counters, p.Bound, t.every)
	began := time.Now()
	rep, err := t.start(ctx, n, full, p)
	stop()
	rep.Counters = t.whole(rep.Counters)
	if we, ok := errors.AsType[*wire.Error](err); ok && t.Mode == wire.ModeVerify && we.Code == wire.CodeTooSmall {
		err = wire.Errorf(wire.CodeVerify, "the disks differ in size: %s", we.Text)
	}
	if err == nil {
		err = t.judge(&rep)
	}
	t.phases = append(t.phases, report.Phase{Name: name, Dur: time.Since(began)})
	return rep, err
}

// voice drops the peer from what one half of a pass says of the other, when both
// are in this process.
func (t *Transfer) voice(text string) string {
	if t.speaker() != "" {
		return text
	}
	return strings.TrimPrefix(text, "peer: ")
}

// judge does not take the absence of an error for a success.
func (t *Transfer) judge(rep *mover.Report) error {
	switch {
	case t.Mode == wire.ModeVerify && t.Compare > 0 && rep.Counters.Bad == 0 && rep.Counters.Scanned > 0:
		return nil // as far as it was compared, and only that was asked for
	case t.Mode == wire.ModeVerify && rep.Larger > 0:
		rep.Equal = false
		return t.sizesDiffer(rep.Counters.Total, rep.Counters.Total+rep.Larger,
			fmt.Sprintf("%d grains of 64 KiB differ in what both have", rep.Counters.Bad))
	case t.Mode == wire.ModeCopy && rep.State == wire.StateVerified && rep.Hinted && rep.Counters.Bad == 0:
		return nil // as far as it was compared; the report says how far that is
	case !rep.Equal && rep.Counters.Bad > 0:
		return wire.Errorf(wire.CodeVerify, "the disks differ in %d grains of 64 KiB", rep.Counters.Bad)
	case !rep.Equal:
		return wire.Errorf(wire.CodeVerify, "the disks are not proved equal")
	case t.Mode == wire.ModeCopy && rep.State != wire.StateVerified:
		return wire.Errorf(wire.CodeVerify, "the target is %v and not Verified", rep.State)
	}
	return nil
}

// whole fills in the size, which the target half of a pull does not count.
func (t *Transfer) whole(c wire.Counters) wire.Counters {
	if c.Total == 0 {
		c.Total = t.size
	}
	return c
}

func (t *Transfer) start(ctx context.Context, n uint32, full bool, p *mover.Progress) (mover.Report, error) {
	job := mover.Job{Run: t.Spec.Run, Pass: n, Mode: t.Mode, Full: full, Track: t.want(), Sample: t.Sample, Throttle: t.Throttle, Rate: t.Rate, Retry: t.Retry, Fence: t.Fence, Unproved: t.Unproved}
	if full {
		job.Track = wire.TrackingOff
	} else {
		job.Base = t.Base
	}
	if t.Mode == wire.ModeVerify {
		job.Sample = t.Compare
	}
	job.Source, job.Target = t.side(t.src, t.srcID, 0, t.driver()), t.side(t.dst, t.dstID, t.create, "")
	switch {
	case job.Source.Remote != nil:
		job.Source.Remote.Ticket, job.Source.Remote.Hint = t.SourceTicket, t.Hint
	case t.Hint != nil:
		job.Source.Hint = func(context.Context, mover.Disk) (cbt.Hint, error) { return *t.Hint, nil }
	}
	if job.Target.Remote != nil {
		job.Target.Remote.Ticket = t.TargetTicket
	}
	if job.Source.Remote == nil || job.Target.Remote == nil {
		return t.engine.Run(ctx, job, p)
	}
	return t.engine.Order(ctx, job.Source.Remote, job, wire.Order{
		Address: t.dst.Address, Peer: t.dstID, Export: t.dst.Export, Transport: t.Transport,
		Rate: t.Rate, Retry: uint32(t.Retry.Seconds()), Full: full,
	}, p)
}

func (t *Transfer) side(e *Endpoint, id wire.ID, create int64, track string) mover.Endpoint {
	switch {
	case e.Remote():
		return mover.Endpoint{Name: e.Text, Remote: e.At(t.reach, t.Transport, id)}
	case e.open != nil:
		return mover.Endpoint{Name: e.Text, Open: e.open}
	}
	return mover.Endpoint{Name: e.Text, Open: site.Disk{URI: e.Text, Create: create, Track: track, Log: report.NewLog(t.out)}.Opener()}
}

// again reads everything once more. That it finds something to send is no
// failure of this run, but somebody has to know.
func (t *Transfer) again(ctx context.Context, first mover.Report) (mover.Report, error) {
	t.create = 0
	n := t.Spec.Pass // the passes of a failback have their numbers
	if n == 0 {
		n = 2
	}
	second, err := t.pass(ctx, "full verify", n, true)
	if n := second.Counters.Differing; n > 0 {
		t.out.Remark(report.Warning, fmt.Sprintf("the full read found %d bytes that differ from what was proved before, and sent them again: "+
			"a program writes to one of the disks, or a device does not keep what it is given; the first pass sent %d bytes", n, first.Counters.Sent))
	}
	if err == nil {
		second.Counters = sum(first.Counters, second.Counters)
	}
	if t.want() != wire.TrackingOff {
		how := "not used: "
		if first.Hinted {
			how = "used: "
		}
		second.Reason = how + first.Reason + "; then everything was read again"
	}
	return second, err
}

// sum is what both passes did; sizes and verdicts are those of the second.
func sum(a, b wire.Counters) wire.Counters {
	b.Differing, b.Zero, b.Sent, b.Wire = a.Differing+b.Differing, a.Zero+b.Zero, a.Sent+b.Sent, a.Wire+b.Wire
	b.Durable, b.ReadBack, b.Had = a.Durable+b.Durable, a.ReadBack+b.ReadBack, a.Had+b.Had
	b.Redone, b.Lost, b.Reconnects = a.Redone+b.Redone, a.Lost+b.Lost, a.Reconnects+b.Reconnects
	return b
}
