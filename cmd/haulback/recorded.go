package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/audit"
)

// recorded makes a change of who may come in, and records it first: what cannot
// be recorded is not done.
func recorded(ctx context.Context, s *site.Site, e audit.Entry, change func() error) error {
	log, err := s.Audit()
	if err != nil {
		return &unrecordedError{err}
	}
	e.Actor, e.Outcome = fmt.Sprintf("uid %d", os.Getuid()), "ok"
	if err := log.Append(ctx, e); err != nil {
		return errors.Join(&unrecordedError{err}, log.Close())
	}
	if err := change(); err != nil {
		e.Outcome, e.Details = "failed", map[string]string{"err": err.Error()}
		if rerr := log.Append(context.WithoutCancel(ctx), e); rerr != nil {
			fmt.Fprintln(os.Stderr, "haulback: that it failed is not recorded:", rerr)
		}
		_ = log.Close() // what failed is told already
		return err
	}
	if err := log.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "haulback: the head of the record is not signed:", err)
	}
	return nil
}

// revoked takes a right away and records it. That it cannot be recorded, because
// the disk is full or the record damaged, keeps nobody in: who is shut out may be
// who has done that.
func revoked(ctx context.Context, s *site.Site, e audit.Entry, change func() error) error {
	err := recorded(ctx, s, e, change)
	why, ok := errors.AsType[*unrecordedError](err)
	if !ok || ctx.Err() != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "haulback: it is done, but not recorded; mend the record:", why.err)
	return nil
}

// unrecordedError says why a change was not made.
type unrecordedError struct{ err error }

func (e *unrecordedError) Error() string {
	return "nothing was changed, because it cannot be recorded: " + e.err.Error()
}
func (e *unrecordedError) Unwrap() error { return e.err }
