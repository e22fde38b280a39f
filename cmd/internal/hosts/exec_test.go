package hosts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/osd"
)

// script is what a site writes: it keeps its state in a file, and notes its calls.
const script = `cd "$1" || exit 3
case "$2" in
status) echo "noise on stderr: on" >&2; cat state ;;
*) echo "$2 $HAULBACK_HOST/$HAULBACK_WORKLOAD grace=$HAULBACK_GRACE home=$HOME" >>calls; echo "$2" >state ;;
esac`

func workload(t *testing.T) (programs, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "power")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	call := func(verb string) []string { return []string{"/bin/sh", path, dir, verb} }
	return programs{"k8s", &config.Workload{Name: "shop", PowerOn: call("on"), PowerOff: call("off"), Status: call("status"), Timeout: time.Minute}}, dir
}

func set(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func isState(t *testing.T, p osd.Power, want hostctl.Power) bool {
	t.Helper()
	is, err := p.State(t.Context())
	return err == nil && is == want
}

func TestPrograms(t *testing.T) {
	p, dir := workload(t)
	var power osd.Power = p
	state := filepath.Join(dir, "state")
	for text, want := range map[string]hostctl.Power{"on": hostctl.On, "off\n": hostctl.Off, " suspended since noon\non\n": hostctl.Suspended} {
		set(t, state, text)
		if is, err := power.State(t.Context()); err != nil || is != want {
			t.Errorf("%q: %v, %v", text, is, err)
		}
	}
	for _, text := range []string{"", "\n", "online", "ON", "unknown", strings.Repeat("x", 9000)} {
		set(t, state, text)
		if is, err := power.State(t.Context()); err == nil || is != hostctl.PowerUnknown || len(err.Error()) > 300 {
			t.Errorf("%.20q: %v, %v", text, is, err)
		}
	}
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	if is, err := power.State(t.Context()); err == nil || is != hostctl.PowerUnknown || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "workload shop of host k8s: status") {
		t.Errorf("a status that fails: %v, %v", is, err)
	}

	set(t, state, "on")
	op := &hostctl.Op{Run: "r", Step: "s"}
	for _, want := range []hostctl.Power{hostctl.On, hostctl.Off, hostctl.Off, hostctl.On} {
		if err := power.Set(t.Context(), op, want, 1500*time.Millisecond); err != nil {
			t.Error(err)
		}
		if is, err := power.State(t.Context()); err != nil || is != want {
			t.Errorf("after Set %v: %v, %v", want, is, err)
		}
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if want := "off k8s/shop grace=2 home=/\non k8s/shop grace= home=/\n"; err != nil || string(calls) != want {
		t.Errorf("calls\n%s\nwant\n%s", calls, want)
	}
	if err := power.Set(t.Context(), op, hostctl.Suspended, 0); err == nil {
		t.Error("somebody suspended it")
	}
	status := p.Status
	p.Status = []string{"/bin/false"}
	if err := power.Set(t.Context(), op, hostctl.Off, 0); err != nil {
		t.Errorf("off, while the status fails: %v", err)
	}
	if p.Status = status; !isState(t, power, hostctl.Off) {
		t.Error("it was left on as its status failed once")
	}
	set(t, state, "on")
	p.PowerOff = []string{"/bin/sh", "-c", "exec sleep 1000"}
	p.Timeout = 50 * time.Millisecond
	if err := p.Set(t.Context(), op, hostctl.Off, 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "did not end within 100ms") {
		t.Errorf("one that hangs: %v", err)
	}
}

// TestOpen: hosts of both kinds, in their order; a workload that nobody can power is
// told where it is.
func TestOpen(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	set(t, password, "x")
	list := []config.Host{
		{Name: "k8s", Kind: config.KindOpenStorage, OpenStorage: "px", Workloads: []config.Workload{
			{Name: "db", Compute: "home", VM: "db-1", Volumes: []config.WorkloadVolume{{Volume: "v", Label: "l"}}}, {Name: "blog", Compute: config.ComputeNone},
		}},
		{Name: "home", Kind: config.KindVSphere, URL: "https://127.0.0.1:1", User: "u", PasswordFile: password},
		{Name: "lost", Kind: config.KindOpenStorage, OpenStorage: "px", Workloads: []config.Workload{{Name: "db", Compute: "nowhere", VM: "db-1"}}},
	}
	client, err := osd.Open(osd.Config{Name: "px", Endpoint: "unix:///nowhere.sock", Auth: osd.AuthNone})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	opened := Open(t.Context(), list, Options{Client: func(string) (*osd.Client, error) { return client, nil }})
	for i, h := range opened {
		if h.Name != list[i].Name || (h.Err == nil) != (h.Name != "lost") || (h.Open == nil) != (h.Name == "lost") {
			t.Errorf("%s: %v, %v", h.Name, h.Open, h.Err)
		}
		if h.Open == nil {
			continue
		}
		if h.Open.Host().Name != h.Name || h.Open.Host().Kind != h.Kind {
			t.Errorf("%+v", h.Open.Host())
		}
		if _, err := h.Open.About(t.Context()); err == nil {
			t.Errorf("%s: nobody answers", h.Name)
		}
		if err := h.Open.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := opened[2].Err; err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Error(err)
	}
	if q := query("4211d7a6-8c4b-4a2e-9a52-6b8a1f6f5a00"); q.UUID == "" || q.Name != "" {
		t.Errorf("%+v", q)
	}
	if q := query("db-1"); q.Name != "db-1" || q.UUID != "" {
		t.Errorf("%+v", q)
	}
}
