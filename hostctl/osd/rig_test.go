package osd

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

const mib = 1 << 20

// rig is a server, a client of it that is quick, and a keeper.
type rig struct {
	t      *testing.T
	server *osdtest.Server
	dir    string // of the server
	ledger string
	cfg    Config
	c      *Client
	k      *Keeper
}

// quick are waits for a server that answers at once.
var quick = waits{tries: 3, least: time.Millisecond, most: 4 * time.Millisecond, poll: time.Millisecond}

// newRig has files for devices, or loop devices where cfg says so.
func newRig(t *testing.T, cfg osdtest.Config) *rig {
	t.Helper()
	if cfg.Loop {
		if err := osdtest.HasLoop(); err != nil {
			t.Skipf("NOT RUN: this test needs loop devices: %v", err)
		}
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := osdtest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, server: s, dir: cfg.Dir, ledger: filepath.Join(t.TempDir(), "ledger")}
	r.cfg = Config{
		Name: "here", Endpoint: s.Endpoint(), CAFile: s.CAFile(), TokenFile: s.TokenFile(),
		Plaintext: cfg.Listen != "" && cfg.Listen != "unix" && !cfg.TLS, Auth: AuthNone,
		Timeout: 5 * time.Second, Long: 5 * time.Second,
	}
	if cfg.Auth {
		r.cfg.Auth = AuthToken
	}
	if !cfg.Loop {
		r.cfg.Files, r.cfg.Devices = true, []string{cfg.Dir + "/*/*"}
	}
	r.c = r.client(r.cfg)
	r.k = r.keeper()
	return r
}

func (r *rig) client(cfg Config) *Client {
	r.t.Helper()
	c, err := Open(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	c.wait = quick
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *rig) keeper() *Keeper {
	k := NewKeeper(r.ledger, nil)
	k.wait = keeperWaits{settle: time.Minute, poll: time.Millisecond, release: 10 * time.Second}
	return k
}

// volume makes one of n MiB; its bytes are of seed.
func (r *rig) volume(name string, n int64, seed byte) string {
	r.t.Helper()
	id, err := r.server.AddVolume(name, n*mib, bytes.NewReader(bytes.Repeat([]byte{seed}, int(n*mib))))
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// calls are how often a method was called while f ran.
func (r *rig) calls(method string, f func()) int {
	before := r.server.Calls(method)
	f()
	return r.server.Calls(method) - before
}

// set changes the server's quirks.
func (r *rig) set(change func(q *osdtest.Quirks)) { r.server.Set(change) }

// clean wants nothing attached, no clone of ours and no row.
func (r *rig) clean() {
	r.t.Helper()
	for _, v := range r.server.Volumes() {
		if v.Attached || strings.HasPrefix(v.Name, "haulback-read-") {
			r.t.Errorf("left on the server: %+v", v)
		}
	}
	files, err := os.ReadDir(r.ledger)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Error(err)
	}
	for _, f := range files {
		b, _ := os.ReadFile(filepath.Join(r.ledger, f.Name()))
		r.t.Errorf("left in the ledger: %s: %s", f.Name(), b)
	}
}
