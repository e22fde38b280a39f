package site

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

func newSite(t testing.TB) *Site {
	t.Helper()
	s, err := At(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Key(); err != nil {
		t.Fatal(err)
	}
	return s
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// join runs the protocol between a joiner and s in this process: the proof
// cannot be made without a connection.
func join(t *testing.T, s *Site, joiner *wire.Key, code wire.PairCode, now time.Time, record func(Peer) error) error {
	t.Helper()
	key, err := s.Key()
	if err != nil {
		t.Fatal(err)
	}
	inv := &testInviter{join: func(a *wire.Applicant) ([sha256.Size]byte, error) { return s.Join(a, now, record) }}
	pc, _, err := wire.ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := wire.ListenQUIC(pc, key, wiretest.NewPeers(), wire.ListenConfig{Inviter: inv})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Pair(t.Context(), QUIC, l.Addr(), joiner, code, "", "test")
	return err
}

type testInviter struct {
	join func(a *wire.Applicant) ([sha256.Size]byte, error)
}

func (*testInviter) Inviting() bool { return true }
func (i *testInviter) Joins(_ context.Context, a *wire.Applicant) ([sha256.Size]byte, error) {
	return i.join(a)
}

func yes(Peer) error { return nil }

func TestInvitation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, life := range []time.Duration{0, -1, MaxInviteLife + 1} {
		if _, err := s.Invite("dr", "", life, noon); err == nil {
			t.Errorf("an invitation for %v", life)
		}
	}
	if _, err := s.Invite("no/name", "", time.Minute, noon); err == nil {
		t.Error("a name that is none")
	}
	code, err := s.Invite("dr", "", 10*time.Minute, noon)
	if err != nil {
		t.Fatal(err)
	}
	a, b := wiretest.Key(t), wiretest.Key(t)
	other, err := wire.NewPairCode(mustKey(t, s).ID(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := join(t, s, a, other, noon, yes); err == nil {
		t.Error("a wrong secret pairs")
	}
	if err := join(t, s, a, code, noon.Add(10*time.Minute), yes); err == nil {
		t.Error("an invitation that is over pairs")
	}
	if err := join(t, s, a, code, noon.Add(-2*time.Hour), yes); err == nil {
		t.Error("with the clock set back an hour and more it pairs")
	}
	refused := errors.New("full")
	if err := join(t, s, a, code, noon, func(Peer) error { return refused }); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("not recorded: %v", err)
	}
	if peers, err := s.Peers(); err != nil || len(peers) != 0 {
		t.Fatalf("paired with %v, %v", peers, err)
	}
	if err := join(t, s, a, code, noon, yes); err != nil {
		t.Fatal(err)
	}
	if err := join(t, s, b, code, noon, yes); err == nil {
		t.Error("a second joiner")
	}
	if err := join(t, s, a, code, noon.Add(30*time.Second), func(Peer) error { t.Error("recorded twice"); return nil }); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := join(t, s, a, code, noon.Add(2*time.Minute), yes); err == nil {
		t.Error("the same again much later")
	}
	if err := s.RemovePeer("dr"); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if code, err = s.Invite("dr", "", time.Minute, now); err != nil {
		t.Fatal(err)
	}
	if err := join(t, s, a, code, now, yes); err != nil {
		t.Fatal(err)
	}
	if err := s.RemovePeer("dr"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []*wire.Key{a, b} {
		if err := join(t, s, key, code, now, yes); err == nil {
			t.Error("who was removed joins again by his code")
		}
	}
	_, err = s.Invite("late", "", time.Minute, noon)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	if busy, err := s.SweepInvitations(noon.Add(time.Hour)); err != nil || !busy {
		t.Fatalf("while somebody changes the site: busy %v, %v", busy, err)
	}
	unlock()
	if busy, err := s.SweepInvitations(noon.Add(time.Hour)); err != nil || busy {
		t.Fatalf("busy %v, %v", busy, err)
	}
	if _, err := os.Stat(s.InvitationsFile()); !os.IsNotExist(err) {
		t.Errorf("what is over is kept: %v", err)
	}
}

func mustKey(t testing.TB, s *Site) *wire.Key {
	t.Helper()
	key, err := s.Key()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestInvitationsAreBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for i := range maxInvitations + 1 {
		_, err := s.Invite("dr", "", time.Minute, noon)
		if (err == nil) != (i < maxInvitations) {
			t.Fatalf("invitation %d: %v", i, err)
		}
	}
	if _, err := s.Invite("dr", "", time.Minute, noon.Add(time.Minute)); err != nil {
		t.Errorf("after they are over: %v", err)
	}
	// A file that cannot be read invites nobody, and says so.
	if err := os.WriteFile(s.InvitationsFile(), []byte("["), 0o600); err != nil {
		t.Fatal(err)
	}
	if until, err := s.InvitedUntil(noon); err == nil || !until.IsZero() {
		t.Errorf("%v, %v", until, err)
	}
}

// TestOneJoinerWins races joiners for one code.
func TestOneJoinerWins(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	code, err := s.Invite("dr", "", time.Minute, noon)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 4 {
		key := wiretest.Key(t)
		wg.Go(func() {
			if join(t, s, key, code, noon, yes) == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	peers, err := s.Peers()
	if won != 1 || err != nil || len(peers) != 1 {
		t.Errorf("%d won; peers %v, %v", won, peers, err)
	}
}

func TestTwoIDs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	old, next, other := wiretest.Key(t).ID(), wiretest.Key(t).ID(), wiretest.Key(t).ID()
	for _, err := range []error{
		s.AddPeer(Peer{Name: "dr", ID: old, Address: "dr:7420"}), s.AddPeer(Peer{Name: "x", ID: other}), s.AddNext("dr", next),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for what, err := range map[string]error{
		"another's ID":   s.AddNext("dr", other),
		"its own ID":     s.AddNext("dr", old),
		"no such peer":   s.AddNext("no", wiretest.Key(t).ID()),
		"as a new peer":  s.AddPeer(Peer{Name: "y", ID: next}),
		"nothing to end": s.Promote("x"),
	} {
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	peers, err := s.Peers()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []wire.ID{old, next} {
		if p, ok := peers.WithID(id); !ok || p.Name != "dr" || len(peers.Pins(id)) != 2 || !peers.Allowed(id) {
			t.Errorf("%v is %+v", id, p)
		}
	}
	if err := s.Promote("dr"); err != nil {
		t.Fatal(err)
	}
	peers, err = s.Peers()
	if p, ok := peers.Named("dr"); err != nil || !ok || p.ID != next || !p.Next.IsZero() || p.Address != "dr:7420" || peers.Allowed(old) {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestSwitchIsKilled kills the change of the key at many moments: the site
// always has one whole key, of the two that its peers let in.
func TestSwitchIsKilled(t *testing.T) {
	if dir := os.Getenv("HAULBACK_SITE_TEST_DIR"); dir != "" {
		s, err := At(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := s.PrepareKey(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.SwitchKey(); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := newSite(t)
	for i := range 25 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSwitchIsKilled$")
		cmd.Env = append(os.Environ(), "HAULBACK_SITE_TEST_DIR="+s.Dir())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(30+4*i) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		if _, err := wire.LoadKey(filepath.Join(s.Dir(), keyFile)); err != nil {
			t.Fatalf("after kill %d: %v", i, err)
		}
		next, err := s.PrepareKey()
		if err != nil {
			t.Fatalf("prepare after kill %d: %v", i, err)
		}
		before := mustKey(t, s)
		now, err := s.SwitchKey()
		if err != nil || now.ID() != next.ID() || mustKey(t, s).ID() != next.ID() || !s.Signs(before.Public()) {
			t.Fatalf("switch after kill %d: %v", i, err)
		}
	}
}

// TestRecordOutlivesKeys changes the key three times: what the first one has
// signed in the record is still signed by this site.
func TestRecordOutlivesKeys(t *testing.T) {
	s := newSite(t)
	for range 4 {
		log, err := s.Audit()
		if err == nil {
			err = errors.Join(log.Append(t.Context(), audit.Entry{Actor: "uid 0", Action: "key.switched"}), log.Close())
		}
		if err == nil {
			_, err = s.PrepareKey()
		}
		if err == nil {
			_, err = s.SwitchKey()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	res, err := audit.Verify(s.AuditDir(), audit.Check{Trusted: s.Signs})
	if err != nil || len(res.Problems) > 0 || res.Records < 8 {
		t.Fatalf("%+v, %v", res, err)
	}
	if key := mustKey(t, newSite(t)); s.Signs(key.Public()) {
		t.Error("a key that it never had")
	}
}
