package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

func newRecorder(t *testing.T) (*recorder, *site.Site) {
	t.Helper()
	s, err := site.At(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	r := new(recorder)
	r.open(s, slog.New(slog.DiscardHandler))
	return r, s
}

func records(t *testing.T, s *site.Site) (list []audit.Record) {
	t.Helper()
	res, err := audit.Verify(s.AuditDir(), audit.Check{Trusted: s.Signs, Each: func(r audit.Record) {
		if r.Action != "audit.head" {
			list = append(list, r)
		}
	}})
	if err != nil || len(res.Problems) > 0 {
		t.Fatal(err, res.Problems)
	}
	return list
}

// TestRefusalsAreCounted floods the record: the first of each kind is in it, then
// one line in 10 s, and no more than so many kinds.
func TestRefusalsAreCounted(t *testing.T) {
	r, s := newRecorder(t)
	synctest.Test(t, func(t *testing.T) {
		ctx := context.WithoutCancel(t.Context())
		for i := range 1000 {
			r.refused(ctx, audit.Entry{Actor: fmt.Sprint("192.0.2.1:", i+1), Action: "peer.join", Outcome: "refused"})
			r.flush(ctx)
		}
		for i := range 1000 {
			r.refused(ctx, audit.Entry{Actor: fmt.Sprint("peer ", i), Action: "session.refused", Object: "x", Outcome: "refused"})
		}
		time.Sleep(refusedEvery)
		r.flush(ctx)
		r.flush(ctx)
	})
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	joins, sessions, counted := 0, 0, 0
	for _, x := range records(t, s) {
		switch {
		case x.Details["times"] != "":
			counted++
		case x.Action == "peer.join":
			joins++
		case x.Action == "session.refused":
			sessions++
		}
	}
	if joins != 1 || sessions != maxRefused || counted != 2 {
		t.Errorf("%d joins, %d sessions, %d counts", joins, sessions, counted)
	}
}

// TestNobodyJoinsUnrecorded lets nobody in when the record cannot be written, and
// goes on when it can again.
func TestNobodyJoinsUnrecorded(t *testing.T) {
	s, err := site.At(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.Key()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.AuditDir(), nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	r := new(recorder)
	r.open(s, slog.New(slog.DiscardHandler))
	inv := &inviter{site: s, record: r, fresh: func() {}, log: slog.New(slog.DiscardHandler)}
	code, err := s.Invite("dr", "", time.Minute, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if inv.Inviting() {
		t.Error("it invites before it has looked")
	}
	inv.look()
	pc, _, err := wire.ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := wire.ListenQUIC(pc, key, wiretest.NewPeers(), wire.ListenConfig{Inviter: inv})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	joiner := wiretest.Key(t)
	if _, err := site.Pair(t.Context(), site.QUIC, l.Addr(), joiner, code, "", ""); err == nil || !strings.Contains(err.Error(), "cannot record the pairing") {
		t.Errorf("got %v", err)
	}
	if peers, err := s.Peers(); err != nil || len(peers) > 0 {
		t.Errorf("paired with %v, %v", peers, err)
	}
	r.note(t.Context(), audit.Entry{Action: "session.begin"}) // nobody fails for that
	if err := os.Remove(s.AuditDir()); err != nil {
		t.Fatal(err)
	}
	if _, err := site.Pair(t.Context(), site.QUIC, l.Addr(), joiner, code, "", ""); err != nil {
		t.Errorf("with a record: %v", err)
	}
	if peers, err := s.Peers(); err != nil || !peers.Allowed(joiner.ID()) {
		t.Errorf("paired with %v, %v", peers, err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if list := records(t, s); len(list) == 0 || list[0].Action != "peer.joined" || list[0].Object != "dr" {
		t.Errorf("%+v", list)
	}
}

func TestDialledAreRevoked(t *testing.T) {
	var d dialled
	a, farA := wire.Pipe(wire.ID{1}, wire.ID{2})
	b, farB := wire.Pipe(wire.ID{1}, wire.ID{3})
	d.add(a)
	d.add(b)
	d.revoke(func(id wire.ID) bool { return id == wire.ID{3} })
	<-farA.Done()
	if err := farB.Err(); err != nil {
		t.Errorf("the other ended: %v", err)
	}
	if a.Peer() != (wire.ID{2}) || b.Err() != nil {
		t.Errorf("%v, %v", a.Peer(), b.Err())
	}
	b.CloseWithError(wire.CodeOK, "")
	<-farB.Done()
}
