package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// osdAttach attaches a volume with what the printed line names and nothing else.
func osdAttach(t *testing.T, line *osdReady, id string) (string, error) {
	t.Helper()
	trust, err := credentials.NewClientTLSFromFile(line.CAFile, "")
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(line.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := grpc.NewClient(line.Endpoint, grpc.WithTransportCredentials(trust))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "bearer "+strings.TrimSpace(string(token)))
	r, err := api.NewOpenStorageMountAttachClient(c).Attach(ctx, &api.SdkVolumeAttachRequest{VolumeId: id})
	return r.GetDevicePath(), err
}

func TestOpenStorage(t *testing.T) {
	dir := t.TempDir()
	image, sim := filepath.Join(dir, "web.raw"), filepath.Join(dir, "sim")
	content := strings.Repeat("haulback", 1<<16)
	if err := os.WriteFile(image, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"openstorage", "--dir", sim, "--listen", "127.0.0.1:0", "--tls", "--auth", "--node", "n1", "--hostname", "host",
		"--image", "web=" + image, "--volume", "data=1MiB",
	}
	if osdtest.HasLoop() != nil {
		t.Log("no loop devices here: --files")
		args = append(args, "--files")
	}
	var line osdReady
	stop := beginAny(t, &line, args...)
	ids := make(map[string]osdVolume)
	for _, v := range line.Volumes {
		ids[v.Name] = v
	}
	if len(ids) != 2 || ids["web"].Size != 1<<19 || ids["data"].Size != 1<<20 || line.Node != "n1" || line.Hostname != "host" {
		t.Errorf("line %+v", line)
	}
	path, err := osdAttach(t, &line, ids["web"].ID)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != content {
		t.Errorf("%s has other bytes: %v", path, err)
	}
	if code := stop(); code != exitcode.Done {
		t.Errorf("exit code %d", code)
	}
	if left, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "loop/backing_file")); err == nil && strings.HasPrefix(string(left), sim) {
		t.Errorf("left: %s", path)
	}
	// the next run has the volumes and makes no second ones
	var again osdReady
	stop = beginAny(t, &again, append(args, "--quirk", "internal.Attach=no luck")...)
	if len(again.Volumes) != 2 || again.Volumes[0] != line.Volumes[0] {
		t.Errorf("the second run has %+v", again.Volumes)
	}
	if _, err := osdAttach(t, &again, ids["web"].ID); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("with a misbehaviour: %v", err)
	}
	if code := stop(); code != exitcode.Done {
		t.Errorf("exit code %d", code)
	}
}

func TestOpenStorageUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"no directory":  {},
		"misbehaviour":  {"--dir", t.TempDir(), "--quirk", "colour"},
		"no size":       {"--dir", t.TempDir(), "--volume", "data"},
		"no unit":       {"--dir", t.TempDir(), "--volume", "data=big"},
		"no file":       {"--dir", t.TempDir(), "--image", "data"},
		"not its file":  {"--dir", t.TempDir(), "--image", "data=/not/there"},
		"one argument":  {"--dir", t.TempDir(), "more"},
		"unknown flags": {"--dir", t.TempDir(), "--colour"},
	} {
		cmd := command()
		cmd.SetArgs(append([]string{"openstorage"}, args...))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); exitcode.Of(err) != exitcode.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}
