package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

func (s *jobSite) client() *connect.Client {
	return connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.State+"/control.sock")
	}}}, "http://haulback"))
}

// changed collects what the daemon calls changed.
func changed(t *testing.T, c controlv1.ExtentsClient, base, target string) (list []*controlv1.BlockMetadata, err error) {
	t.Helper()
	stream, err := c.Changed(t.Context(), &controlv1.ChangedRequest{Base: base, Target: target})
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, m.BlockMetadata...)
	}
}

// TestLook: probe, checksum and extents of disks by the API. What cannot be
// compared is an error and never an empty list.
func TestLook(t *testing.T) {
	t.Parallel()
	s := newJobSite(t, "desk")
	a, b, short := s.Disk("a", 3*mib+77, 1), s.Disk("b", 3*mib+77, 1), s.Disk("short", mib, 2)
	f, err := os.OpenFile(b, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("changed"), 2*mib+5)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	s.up("[jobs]\nallow = [\""+s.Dir+"/*\", \"export:*\"]\n", cmdtest.Export("own", "file://"+a, "source"))
	info, err := controlv1.NewDaemonClient(s.client()).GetInfo(t.Context(), &controlv1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if c := info.Capacity; c.RunningDisks != 4 || c.RunningDisksPerHost != 2 || c.MaxJobs != 11000 || c.MaxDisksPerJob != 256 || c.MaxRequestBytes == 0 || c.MaxStreams == 0 {
		t.Errorf("bounds of a daemon that sets none: %v", c)
	}
	extents := controlv1.NewExtentsClient(s.client())
	if list, err := changed(t, extents, a, b); err != nil || len(list) != 1 || list[0].ByteOffset != 2*mib || list[0].SizeBytes != 64<<10 {
		t.Errorf("changed: %v, %v; want 64 KiB at 2 MiB", list, err)
	}
	if list, err := changed(t, extents, "export:own", a+"x"); err == nil {
		t.Errorf("a disk that is not there: %v", list)
	}
	list, err := changed(t, extents, a, short)
	if info, ok := jobpb.Info(err); !ok || info.Reason != "CHECKSUM_MISMATCH" && info.Reason != "BASE_MISMATCH" || len(list) > 0 {
		t.Errorf("disks of two sizes: %v, %v", list, err)
	}
	list, err = changed(t, extents, "fiemap:"+a, b)
	if info, ok := jobpb.Info(err); !ok || info.Reason != "CBT_INVALID" || len(list) > 0 {
		t.Errorf("no clone: %v, %v", list, err)
	}

	endpoint := controlv1.NewEndpointClient(s.client())
	p, err := endpoint.Probe(t.Context(), &controlv1.ProbeRequest{Uri: "export:own"})
	if err != nil || p.SizeBytes != 3*mib+77 || p.Kind != "file" {
		t.Errorf("probe: %v, %v", p, err)
	}
	if _, err := endpoint.Probe(t.Context(), &controlv1.ProbeRequest{Uri: "/etc/hostname"}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a disk that is not allowed: %v", err)
	}
	s.OK("job", "submit", "--id", "j", a, s.Disk("c", 3*mib+77, 0), "--wait")
	if root := s.disk(t, "j", 0).text("root"); root == "" || root != checksum(t, endpoint, a) || root == checksum(t, endpoint, b) {
		t.Errorf("root of the job %s, checksum %s", root, checksum(t, endpoint, a))
	}
}

func checksum(t *testing.T, c controlv1.EndpointClient, uri string) string {
	t.Helper()
	stream, err := c.Checksum(t.Context(), &controlv1.ChecksumRequest{Uri: uri})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for {
		m, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Result != nil {
			return m.Result.Root
		}
	}
}

// TestJobStoreDamaged: the daemon does not start without its jobs, says why, and
// leaves the file as it is.
func TestJobStoreDamaged(t *testing.T) {
	t.Parallel()
	s := newJobSite(t, "desk").up()
	s.OK("job", "submit", "--id", "j", s.Disk("a", mib, 1), s.Disk("b", mib, 0), "--wait")
	s.d.Signal(syscall.SIGTERM)
	s.d.Wait()
	path := filepath.Join(s.State, "jobs.db")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(text[:4096]) // one of two headers, and then the other one
	clear(text[4096:8192])
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r := programs.Run(t, "haulbackd", "run", "--config", s.Dir+"/haulbackd.toml")
	if r.Code == 0 || !strings.Contains(r.Stderr, "jobs.db") || !strings.Contains(r.Stderr, "left as it is") && !strings.Contains(r.Stderr, "left as it was") {
		t.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(text) {
		t.Errorf("the file was changed (%v)", err)
	}
}
