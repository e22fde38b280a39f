package osd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// suite is what runs on any server: the one of osdtest, or a real one.
type suite struct {
	t      *testing.T
	c      *Client
	k      *Keeper
	ledger string
	prefix string // of all names that are made
	made   []string
}

// newSuite takes the server from the environment (see the package's comment), or
// runs one.
func newSuite(t *testing.T) *suite {
	t.Helper()
	cfg := Config{Name: "suite", Endpoint: os.Getenv("HAULBACK_OSD_ENDPOINT")}
	real := cfg.Endpoint != ""
	if !real {
		server := osdtest.Config{Dir: t.TempDir(), Loop: osdtest.HasLoop() == nil, Auth: true, Listen: "127.0.0.1:0", TLS: true}
		s, err := osdtest.New(server)
		ok(t, err)
		t.Cleanup(func() { ok(t, s.Close()) })
		cfg.Endpoint, cfg.CAFile, cfg.TokenFile = s.Endpoint(), s.CAFile(), s.TokenFile()
		if !server.Loop {
			t.Logf("NOT RUN on loop devices: %v; files are used", osdtest.HasLoop())
			cfg.Files, cfg.Devices = true, []string{server.Dir + "/*/*"}
		}
	} else {
		cfg.CAFile, cfg.TokenFile = os.Getenv("HAULBACK_OSD_CA"), os.Getenv("HAULBACK_OSD_TOKEN_FILE")
		cfg.Plaintext = cfg.unixPath() == "" && cfg.local() && cfg.CAFile == ""
		if cfg.TokenFile == "" {
			cfg.Auth = AuthNone
		}
	}
	c, err := Open(cfg)
	ok(t, err)
	t.Cleanup(func() { _ = c.Close() })
	if !real {
		c.wait = quick
	}
	s := &suite{t: t, c: c, ledger: filepath.Join(t.TempDir(), "ledger"), prefix: "haulback-test-" + random()}
	s.k = NewKeeper(s.ledger, nil)
	t.Cleanup(s.clean)
	return s
}

// clean deletes what the suite has made, newest first.
func (s *suite) clean() {
	ctx := context.WithoutCancel(s.t.Context()) // which has ended
	for i := len(s.made) - 1; i >= 0; i-- {
		if err := s.c.Detach(ctx, s.made[i]); err != nil {
			s.t.Error(err)
		}
		if err := s.c.Delete(ctx, s.made[i]); err != nil {
			s.t.Error(err)
		}
	}
}

// TestServer is what haulback needs of a server, of the first 16 MiB of a volume of its
// own.
func TestServer(t *testing.T) {
	s := newSuite(t)
	t.Run("about", s.about)
	v := s.create(t)
	if t.Failed() {
		return
	}
	t.Run("find", func(t *testing.T) { s.find(t, v) })
	t.Run("bytes", func(t *testing.T) { s.bytes(t, v) })
	t.Run("unflushed", func(t *testing.T) { s.unflushed(t, v) })
	t.Run("idempotent", func(t *testing.T) { s.idempotent(t, v) })
	t.Run("restore", func(t *testing.T) { s.restore(t, v) })
	t.Run("delete", func(t *testing.T) { s.delete(t, v) })
}

const suiteSize = 16 * mib

// volumeSize is what the suite's volumes have. Real clusters round small ones up.
func volumeSize() int64 {
	if os.Getenv("HAULBACK_OSD_ENDPOINT") != "" {
		return 1 << 30
	}
	return suiteSize
}

func (s *suite) labels(role string) map[string]string {
	return map[string]string{"haulback.job": s.prefix, "haulback.role": role}
}

func (s *suite) about(t *testing.T) {
	a := must[About](t)(s.c.About(t.Context()))
	t.Logf("%+v", a)
	if a.Driver == "" || a.SDK == "" {
		t.Error("it says not what it is")
	}
	ok(t, s.c.Here(t.Context()))
	free, size, err := s.c.Space(t.Context())
	ok(t, err)
	t.Logf("%d of %d bytes are free", free, size)
	if free < 0 || free > size {
		t.Errorf("%d of %d bytes are free", free, size)
	}
}

func (s *suite) create(t *testing.T) Volume {
	v := must[Volume](t)(s.c.Create(t.Context(), s.prefix+"-v", volumeSize(), s.labels("test")))
	s.made = append(s.made, v.ID)
	if v.Size != volumeSize() || v.Parent != "" || v.Attached || v.ReadOnly {
		t.Errorf("%+v", v)
	}
	return v
}

func (s *suite) find(t *testing.T, v Volume) {
	ctx := t.Context()
	for _, name := range []string{v.ID, v.Name} {
		if got := must[Volume](t)(s.c.Resolve(ctx, name)); got.ID != v.ID || s.c.Identity(got) != s.c.Identity(v) {
			t.Errorf("%s is %+v", name, got)
		}
	}
	if all := must[[]Volume](t)(s.c.Labelled(ctx, s.labels("test"))); len(all) != 1 || all[0].ID != v.ID {
		t.Errorf("%+v", all)
	}
	_, err := s.c.Resolve(ctx, s.prefix+"-none")
	if !errors.Is(err, hostctl.ErrNotFound) {
		t.Errorf("none: %v", err)
	}
	ok(t, s.c.Detach(ctx, v.ID)) // it is not attached
}

// use opens a volume or snapshot, and ends it all.
func (s *suite) use(t *testing.T, volume, snapshot string, write bool, f func(t *testing.T, a *Attachment, f *os.File)) {
	t.Helper()
	a := must[*Attachment](t)(s.k.Open(t.Context(), s.c, volume, snapshot, write))
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR | unix.O_EXCL
	}
	file := open(t, a, flags)
	ok(t, a.Check(t.Context()))
	f(t, a, file)
	_ = file.Close() // it may be closed
	ok(t, a.Release(t.Context()))
}

func (s *suite) fill(t *testing.T, f *os.File, seed byte) {
	t.Helper()
	_, err := f.WriteAt(bytes.Repeat([]byte{seed}, suiteSize), 0)
	ok(t, err)
}

func (s *suite) wantBytes(t *testing.T, f *os.File, seed byte) {
	t.Helper()
	got := must[[]byte](t)(io.ReadAll(io.NewSectionReader(f, 0, suiteSize)))
	if !bytes.Equal(got, bytes.Repeat([]byte{seed}, suiteSize)) {
		t.Errorf("not %d bytes of %d", suiteSize, seed)
	}
}

// snapshot makes one that the suite deletes.
func (s *suite) snapshot(t *testing.T, v Volume, role string) Volume {
	t.Helper()
	p := must[Volume](t)(s.c.Snapshot(t.Context(), v.ID, s.prefix+"-"+role, s.labels(role)))
	s.made = append(s.made, p.ID)
	if p.Parent != v.ID || p.Size != v.Size {
		t.Errorf("%+v", p)
	}
	return p
}

// bytes: what is flushed is in the snapshot, and its clone has it after the volume
// has other bytes.
func (s *suite) bytes(t *testing.T, v Volume) {
	s.use(t, v.ID, "", true, func(t *testing.T, a *Attachment, f *os.File) {
		second, err := os.OpenFile(f.Name(), os.O_RDWR|unix.O_EXCL, 0)
		if a.h.dev.block() && !errors.Is(err, unix.EBUSY) {
			t.Errorf("a second one opens it: %v", err)
		}
		_ = second.Close() // nil, or a file's
		s.fill(t, f, 1)
		ok(t, f.Sync())
		p := s.snapshot(t, v, "bytes")
		s.fill(t, f, 2)
		ok(t, f.Sync())
		s.use(t, v.ID, p.ID, false, func(t *testing.T, _ *Attachment, f *os.File) { s.wantBytes(t, f, 1) })
	})
	s.use(t, v.ID, "", false, func(t *testing.T, _ *Attachment, f *os.File) { s.wantBytes(t, f, 2) })
	if now := must[Volume](t)(s.c.Inspect(t.Context(), v.ID)); now.Attached {
		t.Errorf("still attached: %+v", now)
	}
	files, _ := os.ReadDir(s.ledger)
	if len(files) != 0 {
		t.Errorf("%d rows are left", len(files))
	}
}

// unflushed says what a snapshot has of a write that nobody has flushed: servers
// differ, and haulback flushes.
func (s *suite) unflushed(t *testing.T, v Volume) {
	s.use(t, v.ID, "", true, func(t *testing.T, _ *Attachment, f *os.File) {
		s.fill(t, f, 3)
		p := s.snapshot(t, v, "unflushed")
		s.use(t, v.ID, p.ID, false, func(t *testing.T, _ *Attachment, f *os.File) {
			b := make([]byte, suiteSize)
			_, err := f.ReadAt(b, 0)
			ok(t, err)
			t.Logf("of %d bytes that were not flushed the snapshot has %d", suiteSize, bytes.Count(b, []byte{3}))
		})
		ok(t, f.Sync())
	})
}

func (s *suite) idempotent(t *testing.T, v Volume) {
	ctx := t.Context()
	if again := must[Volume](t)(s.c.Create(ctx, v.Name, volumeSize(), s.labels("test"))); again.ID != v.ID {
		t.Errorf("Create made %s beside %s", again.ID, v.ID)
	}
	_, err := s.c.Create(ctx, v.Name, 2*volumeSize(), s.labels("test"))
	class(t, err, NameConflict)
	p := s.snapshot(t, v, "idempotent")
	if again := must[Volume](t)(s.c.Snapshot(ctx, v.ID, s.prefix+"-idempotent", s.labels("idempotent"))); again.ID != p.ID {
		t.Errorf("Snapshot made %s beside %s", again.ID, p.ID)
	}
	one := must[Volume](t)(s.c.Clone(ctx, s.prefix+"-clone", p.ID))
	s.made = append(s.made, one.ID)
	if two := must[Volume](t)(s.c.Clone(ctx, s.prefix+"-clone", p.ID)); two.ID != one.ID {
		t.Errorf("Clone made %s beside %s", two.ID, one.ID)
	}
	if all := must[[]Volume](t)(s.c.Snapshots(ctx, v.ID, s.labels("idempotent"))); len(all) != 1 || all[0].ID != p.ID {
		t.Errorf("%+v", all)
	}
	a := must[Volume](t)(s.c.Attach(ctx, one.ID))
	if b := must[Volume](t)(s.c.Attach(ctx, one.ID)); a.Path != b.Path {
		t.Errorf("Attach: %s and %s", a.Path, b.Path)
	}
	wants(t, s.c.Delete(ctx, one.ID), "it is attached")
	for range 2 {
		ok(t, s.c.Detach(ctx, one.ID))
	}
}

// restore: whatever the server has, it is said in the end, and is no success that
// is none.
func (s *suite) restore(t *testing.T, v Volume) {
	s.use(t, v.ID, "", true, func(t *testing.T, _ *Attachment, f *os.File) {
		s.fill(t, f, 4)
		ok(t, f.Sync())
	})
	p := s.snapshot(t, v, "restore")
	s.use(t, v.ID, "", true, func(t *testing.T, _ *Attachment, f *os.File) {
		s.fill(t, f, 5)
		ok(t, f.Sync())
	})
	if err := s.c.Restore(t.Context(), v.ID, p.ID); err != nil {
		t.Logf("no restore here: %v", err)
		retryable(t, err, false)
		return
	}
	s.use(t, v.ID, "", false, func(t *testing.T, _ *Attachment, f *os.File) {
		b := make([]byte, suiteSize)
		_, err := f.ReadAt(b, 0)
		ok(t, err)
		t.Logf("it says that it has restored; %d of %d bytes are those of the snapshot", bytes.Count(b, []byte{4}), suiteSize)
	})
}

func (s *suite) delete(t *testing.T, v Volume) {
	ctx := t.Context()
	for i := len(s.made) - 1; i >= 0; i-- {
		for range 2 {
			ok(t, s.c.Delete(ctx, s.made[i]))
		}
	}
	s.made = nil
	_, err := s.c.Inspect(ctx, v.ID)
	if v, look := s.c.inspect(ctx, v.ID); !errors.Is(err, hostctl.ErrNotFound) && (look != nil || !v.gone) {
		t.Errorf("after Delete: %+v, %v", v, err)
	}
	for _, role := range []string{"test", "bytes", "unflushed", "idempotent", "restore"} {
		for _, v := range must[[]Volume](t)(s.c.Labelled(ctx, s.labels(role))) {
			if !v.gone {
				t.Errorf("left: %+v", v)
			}
		}
	}
}
