package nbd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
)

const mib = 1 << 20

// serverRig is a Server in this process, for the tools of others.
type serverRig struct {
	t      testing.TB
	server *nbd.Server
	socket string
	stop   func() error
	log    *syncedBuffer
}

// needTools skips where one of the judges is missing.
func needTools(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: nobody to judge the server", tool)
		}
	}
}

// startServer serves until the test ends.
func startServer(t testing.TB, cfg nbd.ServerConfig) *serverRig {
	t.Helper()
	r := &serverRig{t: t, log: &syncedBuffer{}}
	cfg.Log = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if r.server, err = nbd.NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	r.socket = filepath.Join(shortDir(t), "s")
	ln, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	r.stop = r.serve(ln)
	return r
}

// serve serves ln, until the test ends or stop is called.
func (r *serverRig) serve(ln net.Listener) (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	done := make(chan error, 1) // 1: nobody may be there to take it
	go func() { done <- r.server.Serve(ctx, ln) }()
	stop = func() error {
		cancel()
		select {
		case err := <-done:
			done <- err
			return err
		case <-time.After(30 * time.Second):
			r.t.Errorf("Serve does not end; its log:\n%s", r.log)
			return nil
		}
	}
	r.t.Cleanup(func() {
		if err := stop(); err != nil {
			r.t.Errorf("Serve: %v", err)
		}
	})
	return stop
}

// shortDir is for sockets, whose paths have 108 bytes at most.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (r *serverRig) uri(export string) string {
	return "nbd+unix:///" + export + "?socket=" + r.socket
}

// disk opens path with our own driver.
func disk(t testing.TB, path string, mode vddk.Mode) vddk.Disk {
	t.Helper()
	d, err := vddk.Open(t.Context(), path, vddk.Options{Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// image makes a file of size bytes: noise with holes, the same for one seed.
func image(t testing.TB, size int64, seed uint64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rng := rand.NewChaCha8([32]byte{byte(seed)})
	noise := make([]byte, 256<<10)
	for off := int64(0); off < size; off += int64(len(noise)) {
		if rng.Uint64()%3 == 0 {
			continue
		}
		_, _ = rng.Read(noise) // never fails
		if _, err := f.WriteAt(noise[:min(int64(len(noise)), size-off)], off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a tool that has to succeed.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := command(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func command(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}

// equalFiles compares as cmp does.
func equalFiles(t testing.TB, a, b string) {
	t.Helper()
	x, err1 := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if !bytes.Equal(x, y) {
		t.Fatalf("%s and %s differ (%d and %d bytes)", a, b, len(x), len(y))
	}
}

// exportInfo is what nbdinfo --json says of an export.
type exportInfo struct {
	Name        string   `json:"export-name"`
	Description string   `json:"description"`
	Size        int64    `json:"export-size"`
	ReadOnly    bool     `json:"is_read_only"`
	Trim        bool     `json:"can_trim"`
	Zero        bool     `json:"can_zero"`
	Flush       bool     `json:"can_flush"`
	FUA         bool     `json:"can_fua"`
	Fast        bool     `json:"can_fast_zero"`
	DF          bool     `json:"can_df"`
	Cache       bool     `json:"can_cache"`
	Multi       bool     `json:"can_multi_conn"`
	Contexts    []string `json:"contexts"`
	Minimum     int64    `json:"block_size_minimum"`
	Preferred   int64    `json:"block_size_preferred"`
	Maximum     int64    `json:"block_size_maximum"`
}

type serverInfo struct {
	Protocol   string       `json:"protocol"`
	TLS        bool         `json:"TLS"`
	Structured bool         `json:"structured"`
	Exports    []exportInfo `json:"exports"`
}

func nbdinfo(t testing.TB, args ...string) (i serverInfo) {
	t.Helper()
	out := run(t, "nbdinfo", append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &i); err != nil {
		t.Fatalf("nbdinfo %v: %v\n%s", args, err, out)
	}
	return i
}
