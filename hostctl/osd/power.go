package osd

import (
	"context"
	"time"

	"github.com/haulback/haulback/hostctl"
)

// Power is what powers a workload. Safe for concurrent use.
type Power interface {
	// State is On, Off or Suspended as it is now.
	State(ctx context.Context) (hostctl.Power, error)
	// Set makes On or Off true, or has asked for it when it returns: State tells.
	// Idempotent. Off within grace; 0 is at once.
	Set(ctx context.Context, op *hostctl.Op, want hostctl.Power, grace time.Duration) error
}
