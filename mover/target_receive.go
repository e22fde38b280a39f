package mover

import (
	"context"
	"io"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// arrival is one Data frame on its way from its stream to the disk.
type arrival struct {
	b    *tbatch
	data wire.Data // of its records the payload is gone after stage 4
	buf  []byte    // the batch as it will lie on the disk; borrowed
	body int64     // bytes of the frame
}

// at is where the bytes of e are to lie.
func (a *arrival) at(e cbt.Extent) []byte {
	off := e.Off % cbt.BatchSize
	return a.buf[off : off+e.Len]
}

// arrivals makes n of them, for stages 4 and 5 together.
func (ts *targetSession) arrivals(n int) {
	ts.arrived, ts.spare = make(chan *arrival, n), make(chan *arrival, n)
	for range n {
		ts.spare <- &arrival{data: wire.Data{Records: make([]wire.Record, 0, cbt.BatchGrains)}}
	}
}

// receiver is stage 4: it owns one data stream and the buffer of its frames.
type receiver struct {
	*targetSession
	binder *wire.Binder
	hash   *cbt.Hasher
}

func (ts *targetSession) receive(ctx context.Context, i uint8, frame []byte) error {
	st, err := ts.l.link.OpenReceive(ctx, wire.StreamID{Kind: wire.StreamData, Index: i})
	if err != nil {
		return onLink(err)
	}
	binder, err := wire.NewBinder(ts.l.link, ts.pos)
	if err != nil {
		return onLink(err)
	}
	r := &receiver{targetSession: ts, binder: binder, hash: cbt.NewHasher()}
	_, writable := ts.disk.(WritableDisk)
	in := wire.NewReaderBuffer(st, frame)
	for {
		t, body, err := in.Next()
		if err == io.EOF {
			return nil // no more from here; the control stream says whether that is in order
		}
		if err != nil {
			return onLink(err)
		}
		if t != wire.TypeData || !writable || ts.mode != wire.ModeCopy {
			return wire.Errorf(wire.CodeFrame, "frame of type %d on a data stream", t)
		}
		ts.pulse.beat()
		ts.holding.Add(1)
		if err = ts.pace.wire(ctx, int64(len(body))); err == nil {
			err = r.frame(ctx, body)
		}
		ts.holding.Add(-1)
		if err != nil {
			return err
		}
	}
}

// frame brings one Data frame to stage 5: all of it is expanded and has its
// digests then. On the way nothing is written but the mark.
func (r *receiver) frame(ctx context.Context, body []byte) error {
	var a *arrival
	select {
	case a = <-r.spare:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := r.parse(a, body); err != nil {
		return err
	}
	var err error
	if a.b, err = r.claim(&a.data); err != nil {
		return err
	}
	if err := r.mark(); err != nil {
		return err
	}
	if err := r.pace.write(ctx, a.data.Raw); err != nil {
		return err
	}
	if a.buf, err = r.mem.borrow(ctx); err != nil {
		return err
	}
	for i := range a.data.Records {
		if err := r.expand(a, &a.data.Records[i]); err != nil {
			r.mem.giveBack(a.buf)
			return err
		}
	}
	a.body = int64(len(body))
	r.arrived <- a // has room: there are no more arrivals than that
	return nil
}

func (r *receiver) parse(a *arrival, body []byte) error {
	err := a.data.ParseData(body, r.size, r.binder)
	if e, ok := err.(*wire.Error); ok && e.Code == wire.CodeBinding && r.cfg.bug == bugNoBinding {
		return nil
	}
	return err
}

func (r *receiver) expand(a *arrival, rec *wire.Record) error {
	if rec.Enc == wire.EncBad || rec.Enc == wire.EncHole || rec.Enc == wire.EncZero {
		return nil
	}
	if rec.Parts != 0 {
		return r.expandParts(a, rec)
	}
	p := a.at(rec.Extent)
	if err := rec.Expand(p); err != nil {
		return err
	}
	var d cbt.Digest
	r.hash.Sum(p, &d)
	if d != rec.Digest && r.cfg.bug != bugNoDigest {
		return wire.Errorf(wire.CodeDigest, "data of %v do not have their digest", rec.Extent)
	}
	return nil
}
