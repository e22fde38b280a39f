package failback_test

import (
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/hosttest"
	"github.com/haulback/haulback/hostctl/store/bolt"
)

// TestTurnStays: a step that was chosen before a cancel does not write over it.
func TestTurnStays(t *testing.T) {
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "failback.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	home, dr := hosttest.NewFake("home", new(hosttest.Log)), hosttest.NewFake("dr", new(hosttest.Log))
	original := home.Add(hostctl.VM{Ref: hostctl.Ref{Name: "web-prod"}}, make([]byte, 4096))
	replica := dr.Add(hostctl.VM{Ref: hostctl.Ref{Name: "web-replica"}, Power: hostctl.On}, make([]byte, 4096))
	e, err := failback.Open(t.Context(), failback.Config{
		Store: db, Lease: db, Mover: hosttest.NewMover(new(hosttest.Log), home, dr), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Hosts: map[string]*hostctl.Host{"home": home.Host(), "dr": dr.Host()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.PutPair(t.Context(), failback.Pair{Name: "web", Original: original, Replica: replica, State: failback.Failover}, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.Start(t.Context(), "one", "me", failback.Spec{VM: "web", Destination: failback.Original}, cbt.Digest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Cancel(t.Context(), "one", 0); err != nil {
		t.Fatal(err)
	}
	for _, to := range []failback.Activity{failback.Preparing, failback.Syncing, failback.Standing, failback.Switching, failback.Deciding} {
		err := e.Move("one", to)
		if s, _ := e.Get(t.Context(), "one"); err == nil || s.Activity != failback.Canceling {
			t.Errorf("to %s: %v, and it is %s", to, err, s.Activity)
		}
	}
	if err := e.Move("one", failback.Canceled); err != nil {
		t.Errorf("to its end: %v", err)
	}
}
