package daemon

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/wire"
)

// inviter implements wire.Inviter for a site.
type inviter struct {
	site   *site.Site
	record *recorder
	log    *slog.Logger
	fresh  func()       // has the invitations read when they have changed
	until  atomic.Int64 // Unix nanoseconds of the end of the last open invitation; 0: none
}

// Inviting implements wire.Inviter.
func (i *inviter) Inviting() bool {
	if i.open() {
		return true
	}
	i.fresh()
	return i.open()
}

// open is Inviting as far as was read.
func (i *inviter) open() bool { return time.Now().UnixNano() < i.until.Load() }

// over reports whether there was an invitation and its time is over.
func (i *inviter) over() bool { return i.until.Load() != 0 && !i.open() }

// look reads which invitations are open, and deletes those that are over.
func (i *inviter) look() {
	now := time.Now()
	until, err := i.site.InvitedUntil(now)
	if err != nil {
		i.log.Error("nobody can join", "err", err)
	}
	if !until.IsZero() {
		i.until.Store(until.UnixNano())
		return
	}
	if err == nil {
		busy, err := i.site.SweepInvitations(now)
		if err != nil {
			i.log.Warn("invitations that are over stay", "err", err)
		}
		if busy && i.over() {
			return // the next look does it
		}
	}
	i.until.Store(0)
}

// Joins implements wire.Inviter.
func (i *inviter) Joins(ctx context.Context, a *wire.Applicant) (key [sha256.Size]byte, err error) {
	joined := audit.Entry{Actor: a.Addr, Action: "peer.joined", Outcome: "ok", Details: map[string]string{"id": a.ID.String(), "address": a.Address, "agent": a.Agent}}
	recorded := false
	key, err = i.site.Join(a, time.Now(), func(p site.Peer) error {
		joined.Object = p.Name
		recorded = true
		return i.record.Append(ctx, joined)
	})
	switch {
	case err == nil:
		i.log.Info("a peer has joined", "peer", a.ID.String(), "addr", a.Addr, "name", joined.Object)
	case recorded:
		joined.Outcome, joined.Details = "failed", map[string]string{"id": a.ID.String(), "err": err.Error()}
		i.record.note(ctx, joined)
		i.log.Error("a peer could not join", "addr", a.Addr, "err", err)
	default:
		i.record.refused(ctx, audit.Entry{Actor: a.Addr, Action: "peer.join", Outcome: "refused", Details: map[string]string{"err": err.Error()}})
	}
	return key, err
}
