package failbacks

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// keyOf is the key of a site.
func keyOf(t *testing.T, s *cmdtest.Site) *wire.Key {
	t.Helper()
	own, err := site.At(s.State, "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := own.Key()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// tickets: what opens a disk of a host, and what does not, by real
// daemons. All but the first leave every byte where it was.
func (w *world) tickets(t *testing.T) {
	w.size = 1 << 20
	leaf, other, chain := w.disk("dr", "leaf.vmdk", nil), w.disk("dr", "other.vmdk", nil), w.disk("dr", "chain.vmdk", nil)
	secret := filepath.Join(w.dr.Site.Dir, "secret.vmdk")
	for _, name := range []string{"leaf.vmdk", "leaf-flat.vmdk"} {
		text, err := os.ReadFile(filepath.Join(w.stores["dr"], "web", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(w.dr.Site.Dir, strings.Replace(name, "leaf", "secret", 1)), bytes.ReplaceAll(text, []byte("leaf-flat"), []byte("secret-flat")), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(secret, filepath.Join(w.stores["dr"], "web", "link.vmdk")); err != nil {
		t.Fatal(err)
	}
	home, stranger := keyOf(t, w.home.Site), keyOf(t, w.stranger)
	dr, err := wire.ParseID(w.dr.Site.ID)
	if err != nil {
		t.Fatal(err)
	}
	self, _ := w.Reach.Self()
	probed := func(p failback.Place) wire.Probed {
		t.Helper()
		e, err := w.place(&p)
		if err != nil {
			t.Fatal(err)
		}
		out, err := w.Engine.Probe(t.Context(), w.dial(w.Key, dr, e.Export))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	is := map[string]wire.Probed{"leaf": probed(leaf), "other": probed(other), "chain": probed(chain)}
	const dir = "host/vm-1/--/[ds] web/"
	type try struct {
		name   string
		from   *wire.Key // who comes
		signer *wire.Key // nil: no ticket
		export string
		edit   func(k *wire.Ticket)
		issued time.Duration
		want   wire.Code
	}
	var full []byte
	for i, c := range []try{
		{"as it should be", home, w.Key, dir + "leaf.vmdk", nil, 0, wire.CodeOK},
		{"no ticket", home, nil, dir + "leaf.vmdk", nil, 0, wire.CodeTicket},
		{"the controller without one", w.Key, nil, dir + "leaf.vmdk", nil, 0, wire.CodeTicket},
		{"signed by the peer itself", home, home, dir + "leaf.vmdk", nil, 0, wire.CodeTicket},
		{"signed by a stranger", home, stranger, dir + "leaf.vmdk", nil, 0, wire.CodeTicket},
		{"a stranger with a good one", stranger, w.Key, dir + "leaf.vmdk", nil, 0, wire.CodeExport},
		{"another's", home, w.Key, dir + "leaf.vmdk", func(k *wire.Ticket) { k.Source = self }, 0, wire.CodeTicket},
		{"for another disk", home, w.Key, dir + "leaf.vmdk", func(k *wire.Ticket) { k.Export, k.Identity = dir+"other.vmdk", is["other"].Identity }, 0, wire.CodeTicket},
		{"with another identity", home, w.Key, dir + "leaf.vmdk", func(k *wire.Ticket) { k.Identity = is["other"].Identity }, 0, wire.CodeTicket},
		{"for its snapshot", home, w.Key, dir + "leaf.vmdk", func(k *wire.Ticket) { k.Export = "host/vm-1/snapshot-7/[ds] web/leaf.vmdk" }, 0, wire.CodeTicket},
		{"of another VM", home, w.Key, dir + "leaf.vmdk", func(k *wire.Ticket) { k.Export = "host/vm-2/--/[ds] web/leaf.vmdk" }, 0, wire.CodeTicket},
		{"to write a snapshot", home, w.Key, "host/vm-1/snapshot-7/[ds] web/leaf.vmdk", nil, 0, wire.CodeRole},
		{"to read", home, w.Key, dir + "leaf.vmdk", func(k *wire.Ticket) { k.Op = wire.TicketRead }, 0, wire.CodeTicket},
		{"to compare", home, w.Key, dir + "leaf.vmdk", func(k *wire.Ticket) { k.Op = wire.TicketVerify }, 0, wire.CodeTicket},
		{"over", home, w.Key, dir + "leaf.vmdk", nil, -30 * time.Minute, wire.CodeTicket},
		{"not yet", home, w.Key, dir + "leaf.vmdk", nil, 30 * time.Minute, wire.CodeTicket},
		{"of another run", home, w.Key, dir + "leaf.vmdk", func(k *wire.Ticket) { k.Run[0]++ }, 0, wire.CodeTicket},
		{"of another pass", home, w.Key, dir + "leaf.vmdk", func(k *wire.Ticket) { k.Pass++ }, 0, wire.CodeTicket},
		{"of a former controller", home, w.Key, dir + "leaf.vmdk", func(k *wire.Ticket) { k.Epoch-- }, 0, wire.CodeFenced},
		{"upwards", home, w.Key, "host/vm-1/--/[ds] ../secret.vmdk", nil, 0, wire.CodeExport},
		{"upwards from below", home, w.Key, "host/vm-1/--/[ds] web/../../secret.vmdk", nil, 0, wire.CodeExport},
		{"absolute", home, w.Key, "host/vm-1/--/[ds] " + secret, nil, 0, wire.CodeExport},
		{"through a link", home, w.Key, dir + "link.vmdk", nil, 0, wire.CodeOpen},
		{"no descriptor", home, w.Key, dir + "leaf-flat.vmdk", nil, 0, wire.CodeOpen},
		{"another datastore", home, w.Key, "host/vm-1/--/[etc] web/leaf.vmdk", nil, 0, wire.CodeExport},
		{"the export itself", home, w.Key, "host", nil, 0, wire.CodeExport},
		{"beneath nothing", home, w.Key, "nothing/vm-1/--/[ds] web/leaf.vmdk", nil, 0, wire.CodeExport},
	} {
		id := idOf(c.from)
		k := wire.Ticket{
			Op: wire.TicketWrite, Run: wire.RunID{7}, Source: id, Target: dr, Pass: 1, Epoch: 50, Life: time.Minute, Size: w.size, Export: c.export, Identity: is["leaf"].Identity,
		}
		if c.edit != nil {
			c.edit(&k)
		}
		to := w.dial(c.from, dr, c.export)
		if c.signer != nil {
			b, err := k.Sign(c.signer, time.Now().Add(c.issued))
			if err != nil {
				t.Fatal(err)
			}
			to.Ticket = func(context.Context) ([]byte, error) { return b, nil }
		}
		source := filepath.Join(t.TempDir(), "source.img")
		if full = bytes.Repeat([]byte{byte(i + 1)}, int(w.size)); i > 0 {
			full = bytes.Repeat([]byte{0xee}, int(w.size))
		}
		if err := os.WriteFile(source, full, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := w.Engine.Run(t.Context(), mover.Job{
			Run: wire.RunID{7}, Mode: wire.ModeCopy, Source: mover.Endpoint{Name: "source", Open: site.Disk{URI: source}.Opener()}, Target: mover.Endpoint{Name: "leaf", Remote: to},
		}, new(mover.Progress))
		if got := code(err); got != c.want {
			t.Errorf("%s: %v, want code %v", c.name, err, c.want)
		}
	}
	for _, p := range []failback.Place{leaf, other, chain} {
		b, err := os.ReadFile(w.flat(p))
		want := make([]byte, w.size)
		if p == leaf {
			want = bytes.Repeat([]byte{1}, int(w.size))
		}
		if err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s was written: %v", p.Disk.File, err)
		}
	}
	if b, err := os.ReadFile(strings.TrimSuffix(secret, ".vmdk") + "-flat.vmdk"); err != nil || bytes.Contains(b, []byte{0xee}) {
		t.Errorf("the secret was written: %v", err)
	}
	for _, key := range []*wire.Key{home, stranger} { // listed, and not
		if _, err := w.Engine.Probe(t.Context(), w.dial(key, dr, dir+"leaf.vmdk")); code(err) != wire.CodeExport || !strings.Contains(err.Error(), "for this peer") {
			t.Errorf("a probe by no controller: %v", err)
		}
	}
	log := w.dr.Site.OK("audit", "show").Out
	for _, want := range []string{"ticket.refused", "session.refused", "peer stranger", "session.end", dir + "leaf.vmdk"} {
		if !strings.Contains(log, want) {
			t.Errorf("the record has no %q:\n%s", want, log)
		}
	}
}

func idOf(k *wire.Key) wire.ID { return k.ID() }

func code(err error) wire.Code {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	}
	return wire.CodeOK
}

// dial is an export of a daemon as the owner of key reaches it.
func (w *world) dial(key *wire.Key, to wire.ID, export string) *mover.Remote {
	return &mover.Remote{Name: export, Export: export, Dial: func(ctx context.Context) (wire.Link, error) {
		return site.Dial(ctx, site.QUIC, w.dr.Listen, key, to)
	}}
}

// fence: an epoch that was passed is refused for ever, by a daemon elsewhere
// and by the one in which the controller runs.
func (w *world) fence(t *testing.T) {
	for _, to := range []string{"home", "here", "dr"} {
		w.size = 1 << 20
		source, target := w.disk("dr", to+"-source.vmdk", bytes.Repeat([]byte{5}, 1<<20)), w.disk(to, to+"-target.vmdk", nil)
		if _, err := w.Move(t.Context(), w.move(newRun(), 1, snapshot(source), target, nil)); err != nil {
			t.Fatal(err)
		}
		stale := w.move(newRun(), 1, snapshot(w.disk("dr", to+"-stale.vmdk", bytes.Repeat([]byte{6}, 1<<20))), target, nil)
		stale.Fence--
		var f *job.Failure
		if _, err := w.Move(t.Context(), stale); !errors.As(err, &f) || f.Reason != job.ReasonFenced || f.Exit != 11 {
			t.Errorf("%s: %v", to, err)
		}
		if !w.cmp(source, target) {
			t.Errorf("%s: a stale controller has written", to)
		}
	}
}

// refused: what cannot be done is refused with a reason and a remedy, and
// what Check says mends it.
func (w *world) refused(t *testing.T) {
	w.size = 1 << 20
	a, b := w.disk("dr", "a.vmdk", nil), w.disk("home", "b.vmdk", nil)
	with := func(p failback.Place, edit func(*failback.Place)) failback.Place { edit(&p); return p }
	for name, c := range map[string]struct {
		move   *failback.Move
		reason string
		text   string
	}{
		"a snapshot as target":    {w.move(newRun(), 1, a, snapshot(b), nil), job.ReasonEndpoint, "never written"},
		"a snapshot here":         {w.move(newRun(), 1, a, snapshot(w.disk("here", "c.vmdk", nil)), nil), job.ReasonEndpoint, "never written"},
		"an unknown host":         {w.move(newRun(), 1, with(a, func(p *failback.Place) { p.VM.Host = "moon" }), b, nil), job.ReasonEndpoint, "[[host]]"},
		"a mover that is no peer": {w.move(newRun(), 1, with(a, func(p *failback.Place) { p.VM.Host = "lost" }), b, nil), job.ReasonAuth, "haulback peer add"},
		"no such disk":            {w.move(newRun(), 1, with(a, func(p *failback.Place) { p.Disk.File = "[ds] web/none.vmdk" }), b, nil), job.ReasonUnavailable, "none.vmdk"},
		"a path that leads out":   {w.move(newRun(), 1, with(a, func(p *failback.Place) { p.Disk.File = "[ds] ../x.vmdk" }), b, nil), job.ReasonEndpoint, "VM/SNAPSHOT"},
		"a handle that is none":   {w.move(newRun(), 1, with(a, func(p *failback.Place) { p.VM.ID = "../x" }), b, nil), job.ReasonEndpoint, "VM/SNAPSHOT"},
		"itself":                  {w.move(newRun(), 1, a, a, nil), job.ReasonEndpoint, "same disk"},
		"itself here":             {w.move(newRun(), 1, w.disk("here", "d.vmdk", nil), with(w.disk("here", "e.vmdk", nil), func(p *failback.Place) { p.Disk.File = "[ds] web/d.vmdk"; p.VM.ID = "vm-2" }), nil), job.ReasonEndpoint, "same disk"},
		"no run":                  {w.move("", 1, a, b, nil), job.ReasonEndpoint, "UUID"},
		"no pass":                 {w.move(newRun(), 0, a, b, nil), job.ReasonEndpoint, "count from 1"},
	} {
		out, err := w.Move(t.Context(), c.move)
		var f *job.Failure
		if !errors.As(err, &f) || f.Reason != c.reason || !strings.Contains(f.Text, c.text) || out.Verified || strings.ContainsAny(f.Text, "\n\x1b") {
			t.Errorf("%s: %v (%+v), want %s with %q", name, err, f, c.reason, c.text)
		}
	}
	for host, want := range map[string]string{
		"dr": "", "home": "", "here": "", "moon": "[[host]]", "lost": "haulback peer add", "none": `role = "host"`, "gone": "mount it there",
	} {
		list := w.Check(t.Context(), host)
		if (len(list) == 0) != (want == "") || len(list) > 0 && (!strings.Contains(list[0].Text+list[0].Remedy, want) || list[0].Reason == "") {
			t.Errorf("check of %s: %+v, want %q", host, list, want)
		}
		if w.Registered(host) {
			t.Errorf("%s needs no registered VM", host)
		}
	}
	for _, host := range []string{"dr", "here"} {
		there := w.disk(host, "there.vmdk", nil)
		if list := w.Check(t.Context(), host, there); len(list) > 0 {
			t.Errorf("check of a disk of %s: %+v", host, list)
		}
		for _, file := range []string{"[ds2] web/there.vmdk", "[ds] web/gone.vmdk", "[ds] gone/there.vmdk"} {
			list := w.Check(t.Context(), host, with(there, func(p *failback.Place) { p.Disk.File = file }))
			if len(list) != 1 || list[0].Reason != job.ReasonEndpoint || !strings.Contains(list[0].Remedy, "datastores") {
				t.Errorf("check of %s of %s: %+v", file, host, list)
			}
		}
	}
	other := w.mover(w.stranger, site.QUIC, w.stores["here"])
	if list := other.Check(t.Context(), "dr"); len(list) != 1 || !strings.Contains(list[0].Remedy, w.stranger.ID) {
		t.Errorf("a stranger's check: %+v", list)
	}
	w.dr.Signal(os.Interrupt)
	w.dr.Wait()
	if list := w.Check(t.Context(), "dr"); len(list) != 1 || list[0].Reason != job.ReasonUnavailable || !strings.Contains(list[0].Remedy, "start haulbackd") {
		t.Errorf("check of a daemon that is down: %+v", list)
	}
}

// TestTicketsAreRenewed: a ticket lasts half its life, then there is another.
func TestTicketsAreRenewed(t *testing.T) {
	key, err := wire.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	k := &tickets{key: key, life: ticketLife, now: func() time.Time { return now }, want: wire.Ticket{
		Op: wire.TicketRead, Run: wire.RunID(uuid.New()), Source: wire.ID{1}, Target: wire.ID{2}, Size: 1, Export: "x", Identity: "y", Epoch: 9, Pass: 2,
	}}
	first, err := k.ticket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		same  bool
	}{{0, true}, {ticketLife/2 - time.Second, true}, {time.Second, false}, {-time.Hour, false}} {
		now = now.Add(step.after)
		b, err := k.ticket(t.Context())
		if err != nil || bytes.Equal(b, first) != step.same {
			t.Errorf("after %v: the same %t, %v", step.after, bytes.Equal(b, first), err)
		}
		first = b
		if p, err := wire.ParseTicket(b); err != nil || p.Epoch != 9 || p.Pass != 2 || p.Signer() != key.ID() {
			t.Errorf("%+v, %v", p, err)
		} else if _, err := p.Good(now); err != nil {
			t.Error(err)
		}
	}
}
