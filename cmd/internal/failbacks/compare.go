package failbacks

import (
	"context"
	"errors"
	"math"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/internal/estimate"
	"github.com/haulback/haulback/cmd/internal/jobs"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// Compare implements failback.Mover: a comparison of one grain in Sample, by the
// same sessions as a verify, with nothing written on either side. It has a run of
// its own, so that it is in no pass's way.
func (m *Mover) Compare(ctx context.Context, mv *failback.Move) (failback.Likeness, error) {
	spec := transfer.Spec{
		Mode: wire.ModeVerify, Run: wire.RunID(uuid.New()), Pass: max(mv.Pass, 1), Fence: mv.Fence, Compare: max(mv.Sample, 1), GoOn: "compare again",
	}
	rep, err := m.transfer(ctx, mv, &spec)
	c := &rep.Counters
	if differs(err) && c.Bad > 0 && c.Scanned > 0 {
		err = nil // that is the answer
	}
	if err == nil && c.Scanned == 0 {
		err = wire.Errorf(wire.CodeVerify, "nothing was compared")
	}
	if err != nil {
		return failback.Likeness{}, jobs.Classify(err)
	}
	return likeness(&rep), nil
}

// differs reports whether err is the verdict of a comparison that came to its end.
func differs(err error) bool {
	e, ok := errors.AsType[*wire.Error](err)
	_, cut := errors.AsType[*mover.IncompleteError](err)
	return ok && e.Code == wire.CodeVerify && !cut
}

// likeness is what rep says of the disks. The interval is that of a confidence of
// 95 %; where all was compared it has no width.
func likeness(rep *mover.Report) failback.Likeness {
	c := &rep.Counters
	total := max(c.Total, c.Scanned)
	l := failback.Likeness{Compared: c.Scanned, Different: min(c.Bad*cbt.GrainSize, c.Scanned), Total: total}
	n, all := cbt.Grains(c.Scanned), cbt.Grains(total)
	low, high := estimate.Interval(min(c.Bad, n), n, all)
	share := float64(l.Different) / float64(c.Scanned)
	bytes := func(share float64) int64 { return int64(math.Round(share * float64(total))) }
	l.Expected = bytes(share)
	l.Error = bytes(max(share-low, high-share, 0))
	if c.Skipped == 0 {
		l.Expected, l.Error = l.Different, 0
	}
	l.Equal = rep.Equal && c.Skipped == 0 && c.Bad == 0 && rep.Larger == 0
	if l.Equal {
		l.Root = rep.Root
	}
	return l
}
