package vsphere

import (
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

func isRetryable(err error) bool { return retries(err) }

// logOut ends the client's session on the host, as a time-out or an
// administrator does. The client is not told.
func logOut(t *testing.T, c *Client) {
	t.Helper()
	l := c.current()
	if l == nil {
		t.Fatal("there is no session")
	}
	if _, err := methods.Logout(t.Context(), l, &types.Logout{This: *l.ServiceContent.SessionManager}); err != nil {
		t.Fatal(err)
	}
}

// H3: a session that has ended is renewed once, and what was asked is asked
// again. The action is not: it is done once.
func TestH3SessionLost(t *testing.T) {
	r := newRig(t, vpx())
	c := r.open()
	vm := r.prepare(c)
	logOut(t, c)
	logins := r.called("Login")
	if _, err := c.Find(t.Context(), hostctl.Query{UUID: vm.UUID}); err != nil {
		t.Errorf("find after a lost session: %v", err)
	}
	if got := r.called("Login") - logins; got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
	for i := range 3 { // once before each of the calls that SetPower begins with
		want := []hostctl.Power{hostctl.On, hostctl.Off, hostctl.On}[i]
		logOut(t, c)
		tasks := r.called("PowerOnVM_Task") + r.called("PowerOffVM_Task")
		if err := c.SetPower(t.Context(), &hostctl.Op{}, vm.Ref, want, 0); err != nil {
			t.Fatalf("power after a lost session: %v", err)
		}
		if got := r.called("PowerOnVM_Task") + r.called("PowerOffVM_Task") - tasks; got != 1 {
			t.Errorf("the host was asked %d times, want once", got)
		}
	}
	// A host that ends sessions as fast as they come is asked for a while.
	rule := &simulator.FaultInjectionRule{
		MethodName: "FindAllByUuid", ObjectType: "*", ObjectName: "*", Probability: 1, MaxCount: maxSessions - 1, Enabled: true, FaultType: simulator.FaultTypeNotAuthenticated,
	}
	r.model.Service.AddFaultRule(rule)
	if _, err := c.Find(t.Context(), hostctl.Query{UUID: vm.UUID}); err != nil {
		t.Errorf("find after %d sessions that ended: %v", maxSessions-1, err)
	}
	rule.MaxCount = 0 // any number
	before := r.called("FindAllByUuid")
	if _, err := c.Find(t.Context(), hostctl.Query{UUID: vm.UUID}); !isRetryable(err) {
		t.Errorf("find on a host that lets nobody stay: %v, want a retryable error", err)
	}
	if got := r.called("FindAllByUuid") - before; got != maxSessions {
		t.Errorf("the host was asked %d times, want %d", got, maxSessions)
	}
}

// The action itself meets the end of its session: the host has not done it, and
// it is asked again after a look.
func TestH3SessionLostInAction(t *testing.T) {
	r := newRig(t, vpx())
	c := r.open()
	vm := r.prepare(c)
	r.model.Service.AddFaultRule(&simulator.FaultInjectionRule{
		MethodName: "PowerOnVM_Task", ObjectType: "*", ObjectName: "*", Probability: 1, MaxCount: 1, Enabled: true, FaultType: simulator.FaultTypeNotAuthenticated,
	})
	if err := c.SetPower(t.Context(), &hostctl.Op{}, vm.Ref, hostctl.On, 0); err != nil {
		t.Fatal(err)
	}
	if got := r.called("PowerOnVM_Task"); got != 2 {
		t.Errorf("the host was asked %d times, want 2", got)
	}
	// A host that never lets in is not asked for ever.
	r.model.Service.AddFaultRule(&simulator.FaultInjectionRule{
		MethodName: "PowerOffVM_Task", ObjectType: "*", ObjectName: "*", Probability: 1, Enabled: true, FaultType: simulator.FaultTypeNotAuthenticated,
	})
	before := r.called("PowerOffVM_Task")
	err := c.SetPower(t.Context(), &hostctl.Op{}, vm.Ref, hostctl.Off, 0)
	if got := r.called("PowerOffVM_Task") - before; err == nil || !isRetryable(err) || got != maxTries {
		t.Errorf("got %v after %d calls, want a retryable error after %d", err, got, maxTries)
	}
}

// H1: a host that is away keeps nobody from starting, and what it is asked is
// worth a retry.
func TestH1Unreachable(t *testing.T) {
	r := newRig(t, vpx())
	r.setDown(true)
	c := r.open()
	_, err := c.Find(t.Context(), hostctl.Query{Name: "web"})
	if err == nil || !isRetryable(err) || !strings.Contains(err.Error(), "host home") {
		t.Fatalf("got %v, want a retryable error that names the host", err)
	}
	r.setDown(false)
	if _, err := c.Find(t.Context(), hostctl.Query{Name: "web"}); !errors.Is(err, hostctl.ErrNotFound) {
		t.Errorf("when it is there again: %v, want ErrNotFound", err)
	}
	// Nobody listens at all.
	cfg := r.cfg
	cfg.URL = "https://127.0.0.1:1"
	lost, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer lost.Close(t.Context())
	if _, err := lost.Find(t.Context(), hostctl.Query{Name: "web"}); !isRetryable(err) {
		t.Errorf("got %v, want a retryable error", err)
	}
}

func TestCertificates(t *testing.T) {
	r := newRig(t, vpx())
	cert := r.front.Certificate()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	other := *cert
	other.Raw = append([]byte{1}, cert.Raw...)
	for _, c := range []struct {
		name      string
		thumb, ca string
		says      string // of the refusal; empty: it works
	}{
		{name: "SHA-256", thumb: soap.ThumbprintSHA256(cert)},
		{name: "SHA-1", thumb: soap.ThumbprintSHA1(cert)},
		{name: "without colons", thumb: plainHex(soap.ThumbprintSHA256(cert))},
		{name: "authority", ca: ca},
		{name: "another SHA-256", thumb: soap.ThumbprintSHA256(&other), says: "write in its [[host]]: thumbprint = \"" + soap.ThumbprintSHA256(cert) + "\""},
		{name: "another SHA-1", thumb: soap.ThumbprintSHA1(&other), says: "write in its [[host]]: thumbprint = \"" + soap.ThumbprintSHA256(cert) + "\""},
		{name: "system", says: "not trusted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := r.cfg
			cfg.Thumbprint, cfg.CAFile = c.thumb, c.ca
			client, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close(t.Context())
			logins := r.called("Login")
			_, err = client.Find(t.Context(), hostctl.Query{Name: "no such VM"})
			if c.says == "" {
				if !errors.Is(err, hostctl.ErrNotFound) {
					t.Errorf("got %v, want ErrNotFound", err)
				}
				return
			}
			if err == nil || isRetryable(err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want a final error that says %q", err, c.says)
			}
			if r.called("Login") != logins {
				t.Error("a host with a wrong certificate was sent the password")
			}
		})
	}
}

func TestPasswordFile(t *testing.T) {
	r := newRig(t, vpx())
	c := r.open()
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(r.cfg.PasswordFile, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []struct{ content, says string }{
		{"wrong", "refused"}, {"", "empty"}, {strings.Repeat("x", maxPassword+1), "right file"},
	} {
		write(bad.content)
		_, err := c.Find(t.Context(), hostctl.Query{Name: "x"})
		if err == nil || isRetryable(err) || !strings.Contains(err.Error(), bad.says) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("password file of %d bytes: got %v, want a final error that says %q", len(bad.content), err, bad.says)
		}
	}
	write(password) // read at each login: no restart
	if _, err := c.Find(t.Context(), hostctl.Query{Name: "x"}); !errors.Is(err, hostctl.ErrNotFound) {
		t.Errorf("with the right password: %v", err)
	}
}

// Many callers share one login.
func TestOneLogin(t *testing.T) {
	r := newRig(t, vpx())
	c := r.open()
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if _, err := c.Find(t.Context(), hostctl.Query{Name: "x"}); !errors.Is(err, hostctl.ErrNotFound) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := r.called("Login"); got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if got := r.called("Logout"); got != 1 {
		t.Errorf("%d logouts, want 1", got)
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{Name: "dr", URL: "https://vc.example", User: "u", PasswordFile: "/p"}
	for _, c := range []struct {
		name   string
		change func(*Config)
		says   string // empty: it is valid
	}{
		{"good", func(*Config) {}, ""},
		{"port", func(c *Config) { c.URL = "https://vc.example:8443/sdk" }, ""},
		{"no name", func(c *Config) { c.Name = "" }, "no name"},
		{"plain HTTP", func(c *Config) { c.URL = "http://vc.example" }, "https"},
		{"no host", func(c *Config) { c.URL = "https://" }, "https"},
		{"a password in it", func(c *Config) { c.URL = "https://u:secret@vc.example" }, "password_file"},
		{"a path", func(c *Config) { c.URL = "https://vc.example/ui" }, "/sdk"},
		{"no user", func(c *Config) { c.User = "" }, "user"},
		{"no password", func(c *Config) { c.PasswordFile = "" }, "password_file"},
		{"short thumbprint", func(c *Config) { c.Thumbprint = "ab:cd" }, "SHA-256"},
		{"no thumbprint", func(c *Config) { c.Thumbprint = strings.Repeat("zz", 32) }, "SHA-256"},
		{"both", func(c *Config) { c.Thumbprint, c.CAFile = strings.Repeat("ab", 32), "/ca" }, "exclude"},
	} {
		cfg := good
		c.change(&cfg)
		err := cfg.Validate()
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%s: got %v, want it to say %q", c.name, err, c.says)
		}
	}
	bad := good
	bad.CAFile = filepath.Join(t.TempDir(), "none.pem")
	if _, err := Open(t.Context(), bad); err == nil {
		t.Error("an authority that is not there: no error")
	}
}

// TestCalled: each try of a call is told with how it ended, also those of a login
// that does not come to be.
func TestCalled(t *testing.T) {
	r := newRig(t, vpx())
	var calls hostctl.Calls
	r.cfg.Called = calls.Of("home")
	c := r.open()
	vm := r.prepare(c)
	r.model.Service.AddFaultRule(&simulator.FaultInjectionRule{
		MethodName: "PowerOnVM_Task", ObjectType: "*", ObjectName: "*", Probability: 1, MaxCount: 1, Enabled: true, FaultType: simulator.FaultTypeNotAuthenticated,
	})
	if err := c.SetPower(t.Context(), &hostctl.Op{}, vm.Ref, hostctl.On, 0); err != nil {
		t.Fatal(err)
	}
	r.setDown(true)
	if _, err := c.Find(t.Context(), hostctl.Query{Name: "web"}); err == nil {
		t.Error("a host that is away is found on")
	}
	r.setDown(false)
	for name, spoil := range map[string]func(*Config){
		"pin":    func(cfg *Config) { cfg.Thumbprint = strings.Repeat("AA:", 31) + "AA" },
		"system": func(cfg *Config) { cfg.Thumbprint = "" },
		"user":   func(cfg *Config) { cfg.User = "nobody@vsphere.local" },
	} {
		cfg := r.cfg
		cfg.Called = calls.Of(name)
		spoil(&cfg)
		other, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Find(t.Context(), hostctl.Query{Name: "web"}); err == nil {
			t.Errorf("%s: it is let in", name)
		}
		_ = other.Close(t.Context()) // there is no session
	}
	got := calls.All()
	for _, want := range []hostctl.Call{
		{To: "home", Method: "ServiceVersions", Class: "ok"},
		{To: "home", Method: "Login", Class: "ok"},
		{To: "home", Method: "PowerOnVM_Task", Class: "ok"},
		{To: "home", Method: "PowerOnVM_Task", Class: "session"},
		{To: "pin", Method: "ServiceVersions", Class: "certificate"},
		{To: "system", Method: "ServiceVersions", Class: "certificate"},
		{To: "user", Method: "Login", Class: "authentication"},
	} {
		if got[want] == 0 {
			t.Errorf("no call %v; there are %v", want, got)
		}
	}
	away := false
	for c := range got {
		away = away || c.To == "home" && c.Class == "away"
	}
	if !away {
		t.Errorf("nobody was told that the host was away: %v", got)
	}
}
