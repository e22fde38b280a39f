package osdtest

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// client is the raw API.
type client struct {
	t        *testing.T
	ctx      context.Context
	identity api.OpenStorageIdentityClient
	node     api.OpenStorageNodeClient
	volume   api.OpenStorageVolumeClient
	attach   api.OpenStorageMountAttachClient
}

// start makes a server, closed at the test's end, and a client without a token.
func start(t *testing.T, cfg Config) (*Server, *client) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Loop {
		needLoop(t)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, dial(t, s.Endpoint(), plain)
}

var plain = withTLS(insecure.NewCredentials())

func withTLS(c credentials.TransportCredentials) grpc.DialOption {
	return grpc.WithTransportCredentials(c)
}

func needLoop(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: loop devices need root")
	}
	if err := HasLoop(); err != nil {
		t.Skip("SKIPPED:", err)
	}
}

func dial(t *testing.T, endpoint string, options ...grpc.DialOption) *client {
	t.Helper()
	c, err := grpc.NewClient(endpoint, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{
		t, t.Context(), api.NewOpenStorageIdentityClient(c), api.NewOpenStorageNodeClient(c),
		api.NewOpenStorageVolumeClient(c), api.NewOpenStorageMountAttachClient(c),
	}
}

// as is the client with a token.
func (c *client) as(token string) *client {
	with := *c
	with.ctx = metadata.AppendToOutgoingContext(c.ctx, "authorization", "bearer "+token)
	return &with
}

// token is what as put there.
func (c *client) token(t *testing.T) string {
	md, _ := metadata.FromOutgoingContext(c.ctx)
	if len(md["authorization"]) != 1 {
		t.Fatalf("no token: %v", md)
	}
	return md["authorization"][0]
}

func (c *client) create(name string, size uint64, labels map[string]string) (string, error) {
	r, err := c.volume.Create(c.ctx, &api.SdkVolumeCreateRequest{Name: name, Spec: &api.VolumeSpec{Size: size}, Labels: labels})
	return r.GetVolumeId(), err
}

func (c *client) clone(name, parent string) (string, error) {
	r, err := c.volume.Clone(c.ctx, &api.SdkVolumeCloneRequest{Name: name, ParentId: parent})
	return r.GetVolumeId(), err
}

func (c *client) snapshot(id, name string, labels map[string]string) (string, error) {
	r, err := c.volume.SnapshotCreate(c.ctx, &api.SdkVolumeSnapshotCreateRequest{VolumeId: id, Name: name, Labels: labels})
	return r.GetSnapshotId(), err
}

func (c *client) restore(id, snapshot string) error {
	_, err := c.volume.SnapshotRestore(c.ctx, &api.SdkVolumeSnapshotRestoreRequest{VolumeId: id, SnapshotId: snapshot})
	return err
}

func (c *client) remove(id string) error {
	_, err := c.volume.Delete(c.ctx, &api.SdkVolumeDeleteRequest{VolumeId: id})
	return err
}

func (c *client) plug(id string) (string, error) {
	r, err := c.attach.Attach(c.ctx, &api.SdkVolumeAttachRequest{VolumeId: id})
	return r.GetDevicePath(), err
}

func (c *client) unplug(id string) error {
	_, err := c.attach.Detach(c.ctx, &api.SdkVolumeDetachRequest{VolumeId: id})
	return err
}

func (c *client) inspect(id string) *api.Volume {
	c.t.Helper()
	r, err := c.volume.Inspect(c.ctx, &api.SdkVolumeInspectRequest{VolumeId: id})
	if err != nil {
		c.t.Fatalf("inspect %s: %v", id, err)
	}
	return r.GetVolume()
}

func (c *client) snapshots(id string, labels map[string]string) []string {
	c.t.Helper()
	r, err := c.volume.SnapshotEnumerateWithFilters(c.ctx, &api.SdkVolumeSnapshotEnumerateWithFiltersRequest{VolumeId: id, Labels: labels})
	if err != nil {
		c.t.Fatal(err)
	}
	return r.GetVolumeSnapshotIds()
}

// must is the id or path of a call that has to go well.
func must(t *testing.T) func(string, error) string {
	return func(what string, err error) string {
		t.Helper()
		if err != nil || what == "" {
			t.Fatalf("answer %q, %v", what, err)
		}
		return what
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants checks code and text of a refusal.
func wants(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if got := status.Convert(err); got.Code() != code || !bytes.Contains([]byte(got.Message()), []byte(text)) {
		t.Errorf("%v: %q; want %v with %q", got.Code(), got.Message(), code, text)
	}
}

const mib = 1 << 20

// pattern are n bytes that differ by block and by what.
func pattern(n int, what byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = what ^ byte(i>>12) ^ byte(i)
	}
	return b
}

// holds checks the first bytes of a file.
func holds(t *testing.T, file string, want []byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: other bytes", file)
	}
}

func write(t *testing.T, file string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	ok(t, f.Sync())
}
