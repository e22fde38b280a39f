package worker_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/vddk/vix/vixtest"
	"github.com/haulback/haulback/vddk/worker"
)

// supervisorEnv makes this program a supervisor that opens a disk and waits to be
// killed: the value is the library's folder, the worker and the state directory.
const supervisorEnv = "WORKER_TEST_SUPERVISOR"

func TestMain(m *testing.M) {
	if args := strings.Split(os.Getenv(supervisorEnv), "\n"); len(args) == 3 {
		os.Exit(supervise(args[0], args[1], args[2]))
	}
	code := m.Run()
	kit.Remove()
	os.Exit(code)
}

// kit is removed by TestMain.
var kit vixtest.Kit

func supervise(lib, program, state string) int {
	var p worker.Pool
	c := config(lib, program)
	c.StateDir = state
	if _, err := p.Open(context.Background(), c, target()); err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	os.Stdout.WriteString("open\n")
	select {}
}

const diskName = "[ds] vm/vm.vmdk"

func config(lib, program string) worker.Config {
	return worker.Config{
		Program: program, LibDir: lib, Server: "vc.example", VM: "vm-42", Thumbprint: vixtest.Thumbprint,
		User: "root", Password: "secret-of-the-test", Guard: true,
	}
}

func target() worker.Target {
	return worker.Target{Path: diskName, Transports: "nbdssl", MaxRequest: 2 << 20}
}

// site is the library with one disk, a worker and a pool.
type site struct {
	lib  *vixtest.Library
	pool worker.Pool
	c    worker.Config
	file string
	log  lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newSite(t *testing.T) *site {
	t.Helper()
	path := kit.Worker(t, raceEnabled)
	t.Setenv("TMPDIR", t.TempDir()) // of the sockets
	s := &site{lib: kit.Library(t, 80), file: filepath.Join(t.TempDir(), "disk.raw")}
	if err := errors.Join(os.WriteFile(s.file, []byte("data"), 0o600), os.Truncate(s.file, 4<<20)); err != nil {
		t.Fatal(err)
	}
	s.lib.Disk(diskName, s.file)
	s.lib.Record()
	s.c = config(s.lib.Dir, path)
	s.c.StateDir = t.TempDir()
	s.c.Log = slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return s
}

func (s *site) open(t *testing.T) (*worker.Disk, *nbd.Client) {
	t.Helper()
	d, err := s.pool.Open(t.Context(), s.c, target())
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log.String())
	}
	c, err := nbd.Open(t.Context(), nbd.Config{URI: nbd.URI{Network: "unix", Address: d.Socket, Export: d.Export}, Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		d.Close()
	})
	return d, c
}

func (s *site) pids() (pids []int) {
	for _, c := range s.lib.Calls() {
		if c.Function == "InitEx" {
			pid, _ := strconv.Atoi(c.PID)
			pids = append(pids, pid)
		}
	}
	return pids
}

func wantDied(t *testing.T, err error, text string) {
	t.Helper()
	died, ok := errors.AsType[*worker.DiedError](err)
	if !ok || !died.Retryable() || !errors.Is(err, syscall.ESHUTDOWN) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want that the worker died and %q", err, text)
	}
}
