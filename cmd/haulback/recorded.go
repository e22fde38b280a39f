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
		return fmt.Errorf("nothing was changed, because it cannot be recorded: %w", err)
	}
	e.Actor, e.Outcome = fmt.Sprintf("uid %d", os.Getuid()), "ok"
	if err := log.Append(ctx, e); err != nil {
		return errors.Join(fmt.Errorf("nothing was changed, because it cannot be recorded: %w", err), log.Close())
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
