package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// begin runs haulback-sim until stop is called, which returns its exit code.
func begin(t *testing.T, args ...string) (line ready, stop func() exitcode.Code) {
	t.Helper()
	stop = beginAny(t, &line, args...)
	return line, stop
}

// beginAny reads the printed line into any struct.
func beginAny(t *testing.T, line any, args ...string) (stop func() exitcode.Code) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(w)
	ended := make(chan error, 1)
	go func() {
		err := cmd.ExecuteContext(ctx)
		w.CloseWithError(io.EOF)
		ended <- err
	}()
	text, err := bufio.NewReader(r).ReadBytes('\n')
	if err != nil {
		cancel()
		t.Fatal(err, <-ended)
	}
	if err := json.Unmarshal(text, line); err != nil {
		t.Fatal(err)
	}
	stop = func() exitcode.Code {
		cancel()
		return exitcode.Of(<-ended)
	}
	t.Cleanup(cancel)
	return stop
}

// ask sends a request to the control port.
func ask(t *testing.T, socket, method, path, body string) string {
	t.Helper()
	return cmdtest.Ask(t, socket, method, "http://sim"+path, body)
}

// visit logs in with what the printed line names and nothing else.
func visit(t *testing.T, line *ready) *vim25.Client {
	t.Helper()
	secret, err := os.ReadFile(line.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(line.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	u, err := soap.ParseURL(line.URL)
	if err != nil {
		t.Fatal(err)
	}
	sc := soap.NewClient(u, false)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	sc.DefaultTransport().TLSClientConfig.RootCAs = roots
	c, err := vim25.NewClient(t.Context(), sc)
	if err != nil {
		t.Fatal(err)
	}
	if err := session.NewManager(c).Login(t.Context(), url.UserPassword(line.User, strings.TrimSpace(string(secret)))); err != nil {
		t.Fatal(err)
	}
	return c
}

const simTOML = `
kind = "vcenter"
networks = ["lan"]
[[datastore]]
name = "fast"
capacity = "1GiB"
[[vm]]
name = "web"
networks = ["lan"]
cpus = 2
memory = "256MiB"
on = true
[[vm.disk]]
image = "web.raw"
[[vm.disk]]
size = "2MiB"
`

func TestRun(t *testing.T) {
	dir := t.TempDir()
	config, sim := filepath.Join(dir, "sim.toml"), filepath.Join(dir, "sim")
	for name, text := range map[string]string{"sim.toml": simTOML, "web.raw": strings.Repeat("haulback", 1<<17), "text": "written by the guest"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(t.TempDir(), "c.sock")
	line, stop := begin(t, "run", "--dir", sim, "--config", config, "--control", socket)
	for _, secret := range []string{line.PasswordFile, socket, filepath.Join(sim, "server.pem")} {
		if st, err := os.Stat(secret); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", secret, st.Mode(), err)
		}
	}
	c := visit(t, &line)
	if _, err := find.NewFinder(c).VirtualMachine(t.Context(), "web"); err != nil {
		t.Error(err)
	}
	ask(t, socket, "POST", "/v1/vms/web/write", `{"disk":1,"off":4096,"file":"`+filepath.Join(dir, "text")+`"}`)
	if got := ask(t, socket, "GET", "/v1/vms/web/read?disk=1&off=4096&len=20", ""); got != "written by the guest" {
		t.Errorf("read %q", got)
	}
	if got := ask(t, socket, "GET", "/v1/vms/web/read?disk=0&off=8&len=8", ""); got != "haulback" {
		t.Errorf("the image is not there: %q", got)
	}
	var id struct{ ID string }
	if err := json.Unmarshal([]byte(ask(t, socket, "POST", "/v1/vms/web/churn", `{"disk":0,"rate":1048576,"seed":1}`)), &id); err != nil {
		t.Fatal(err)
	}
	ask(t, socket, "POST", "/v1/churns/"+id.ID+"/stop", "")
	ask(t, socket, "POST", "/v1/switches", `{"under_report":2}`)
	if got := ask(t, socket, "GET", "/v1/switches", ""); !strings.Contains(got, `"under_report":2`) {
		t.Errorf("switches: %s", got)
	}
	ask(t, socket, "POST", "/v1/vms/web/power", `{"to":"off"}`)
	ask(t, socket, "POST", "/v1/vms", `{"name":"late","disks":[{"size":1048576}]}`)
	if code := stop(); code != exitcode.Done {
		t.Errorf("exit code %d", code)
	}
	// the next run finds both VMs, and keeps the password
	before := line.Thumbprint
	line, stop = begin(t, "run", "--dir", sim, "--config", config, "--control", socket)
	if line.Thumbprint != before {
		t.Error("the second run has another certificate")
	}
	c = visit(t, &line)
	vms, err := find.NewFinder(c).VirtualMachineList(t.Context(), "*")
	if err != nil || len(vms) != 2 {
		t.Errorf("VMs of the second run: %v, %v", vms, err)
	}
	if got := ask(t, socket, "GET", "/v1/vms/web/read?disk=1&off=4096&len=20", ""); got != "written by the guest" {
		t.Errorf("after a restart: %q", got)
	}
	if code := stop(); code != exitcode.Done {
		t.Errorf("exit code %d", code)
	}
}

func TestUsage(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "sim.toml")
	if err := os.WriteFile(bad, []byte("colour = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"no directory": {"run"},
		"unknown key":  {"run", "--dir", t.TempDir(), "--config", bad},
		"no verb":      {},
	} {
		cmd := command()
		cmd.SetArgs(args)
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); exitcode.Of(err) != exitcode.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
	cmd := command()
	cmd.SetArgs([]string{"run", "--dir", t.TempDir(), "--listen", "0.0.0.0:0"})
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("all addresses: %v", err)
	}
}
