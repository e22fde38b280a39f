package osd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

// file makes a file of that mode.
func file(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	ok(t, os.WriteFile(p, []byte(text), 0o600))
	ok(t, os.Chmod(p, mode))
	return p
}

func TestConfigCheck(t *testing.T) {
	token := file(t, "token", "a.b.c\n", 0o600)
	fifo := filepath.Join(t.TempDir(), "fifo")
	ok(t, unix.Mkfifo(fifo, 0o600))
	good := Config{Name: "px", Endpoint: "node.example:9020", TokenFile: token}
	for name, test := range map[string]struct {
		change func(c *Config)
		want   string // what the error has; empty: none
	}{
		"good":                    {func(*Config) {}, ""},
		"unix":                    {func(c *Config) { c.Endpoint = "unix:///run/osd.sock" }, ""},
		"plaintext on loopback":   {func(c *Config) { c.Endpoint, c.Plaintext = "127.0.0.1:9100", true }, ""},
		"plaintext on ::1":        {func(c *Config) { c.Endpoint, c.Plaintext = "[::1]:9100", true }, ""},
		"plaintext on localhost":  {func(c *Config) { c.Endpoint, c.Plaintext = "localhost:9100", true }, ""},
		"guest":                   {func(c *Config) { c.Auth, c.TokenFile = AuthNone, "" }, ""},
		"no name":                 {func(c *Config) { c.Name = "" }, "name:"},
		"name":                    {func(c *Config) { c.Name = "a/b" }, "name:"},
		"driver":                  {func(c *Config) { c.Driver = "p x" }, "driver:"},
		"node":                    {func(c *Config) { c.Node = "a\nb" }, "node:"},
		"no endpoint":             {func(c *Config) { c.Endpoint = "" }, "write HOST:PORT"},
		"no port":                 {func(c *Config) { c.Endpoint = "node" }, "endpoint:"},
		"port 0":                  {func(c *Config) { c.Endpoint = "node:0" }, "endpoint:"},
		"port":                    {func(c *Config) { c.Endpoint = "node:99999" }, "endpoint:"},
		"no host":                 {func(c *Config) { c.Endpoint = ":9100" }, "endpoint:"},
		"URL":                     {func(c *Config) { c.Endpoint = "https://node:9100" }, "endpoint:"},
		"dns scheme":              {func(c *Config) { c.Endpoint = "dns:///node:9100" }, "endpoint:"},
		"unix without a path":     {func(c *Config) { c.Endpoint = "unix://" }, "write unix:///PATH"},
		"unix, relative":          {func(c *Config) { c.Endpoint = "unix://run/s" }, "write unix:///PATH"},
		"unix, ..":                {func(c *Config) { c.Endpoint = "unix:///run/../s" }, "write unix:///PATH"},
		"unix:path":               {func(c *Config) { c.Endpoint = "unix:/run/s" }, "write unix:///PATH"},
		"plaintext to elsewhere":  {func(c *Config) { c.Plaintext = true }, "plaintext: only for a loopback"},
		"plaintext to an address": {func(c *Config) { c.Endpoint, c.Plaintext = "192.0.2.1:9100", true }, "plaintext: only for a loopback"},
		"plaintext to 0.0.0.0":    {func(c *Config) { c.Endpoint, c.Plaintext = "0.0.0.0:9100", true }, "plaintext: only for a loopback"},
		"plaintext by unix":       {func(c *Config) { c.Endpoint, c.Plaintext = "unix:///s", true }, "plaintext: a unix socket"},
		"CA by unix":              {func(c *Config) { c.Endpoint, c.CAFile = "unix:///s", token }, "ca_file: this endpoint has no TLS"},
		"server name by unix":     {func(c *Config) { c.Endpoint, c.ServerName = "unix:///s", "x" }, "server_name: this endpoint has no TLS"},
		"CA missing":              {func(c *Config) { c.CAFile = token + "-none" }, "ca_file:"},
		"CA is none":              {func(c *Config) { c.CAFile = token }, "there is no certificate in it"},
		"server name":             {func(c *Config) { c.ServerName = "a b" }, "server_name:"},
		"auth":                    {func(c *Config) { c.Auth = "basic" }, `auth: "basic"; write "token" or "none"`},
		"none and a token":        {func(c *Config) { c.Auth = AuthNone }, "token_file: auth"},
		"no token":                {func(c *Config) { c.TokenFile = "" }, "token_file: it is missing"},
		"token file missing":      {func(c *Config) { c.TokenFile = token + "-none" }, "token_file:"},
		"token of a group":        {func(c *Config) { c.TokenFile = file(t, "t", "a.b.c", 0o640) }, "give it mode 0600"},
		"token of all":            {func(c *Config) { c.TokenFile = file(t, "t", "a.b.c", 0o604) }, "give it mode 0600"},
		"token read-only":         {func(c *Config) { c.TokenFile = file(t, "t", "a.b.c", 0o400) }, ""},
		"empty token":             {func(c *Config) { c.TokenFile = file(t, "t", "", 0o600) }, "it is empty"},
		"blank token":             {func(c *Config) { c.TokenFile = file(t, "t", " \n\t\n", 0o600) }, "it is empty"},
		"two words":               {func(c *Config) { c.TokenFile = file(t, "t", "bearer a.b.c", 0o600) }, "no token"},
		"two lines":               {func(c *Config) { c.TokenFile = file(t, "t", "a\nb", 0o600) }, "no token"},
		"token too long":          {func(c *Config) { c.TokenFile = file(t, "t", strings.Repeat("a", maxToken+1), 0o600) }, "longer than"},
		"token is a directory":    {func(c *Config) { c.TokenFile = t.TempDir() }, "it is no file"},
		"token is a FIFO":         {func(c *Config) { c.TokenFile = fifo }, "it is no file"},
		"no devices":              {func(c *Config) { c.Devices = []string{} }, "devices: the list is empty"},
		"device relative":         {func(c *Config) { c.Devices = []string{"loop*"} }, "devices:"},
		"device with ..":          {func(c *Config) { c.Devices = []string{"/dev/../etc/*"} }, "devices:"},
		"device pattern":          {func(c *Config) { c.Devices = []string{"/dev/[a"} }, "devices:"},
		"device /":                {func(c *Config) { c.Devices = []string{"/"} }, "devices:"},
		"dev_root":                {func(c *Config) { c.DevRoot = "host" }, "dev_root:"},
		"timeout":                 {func(c *Config) { c.Timeout = -1 }, "timeout:"},
		"long timeout":            {func(c *Config) { c.Long = -1 }, "long_timeout:"},
		"long timeout below":      {func(c *Config) { c.Long = time.Second }, "long_timeout: 1s is below"},
		"restore":                 {func(c *Config) { c.Restore = "magic" }, `write "mover" or "server"`},
	} {
		c := good
		test.change(&c)
		switch err := c.Check(); {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: the error is %v, want %q in it", name, err, test.want)
		case err != nil && strings.ContainsAny(err.Error(), "\n"):
			t.Errorf("%s: more than a line: %q", name, err)
		}
		if _, err := Open(c); (err == nil) != (test.want == "") {
			t.Errorf("%s: Open answers %v", name, err)
		}
	}
}

// TestToken is who gets in, and with which word not.
func TestToken(t *testing.T) {
	r := newRig(t, osdtest.Config{Listen: "127.0.0.1:0", TLS: true, Auth: true})
	id := r.volume("v", 1, 1)
	put := func(token string) { ok(t, os.WriteFile(r.cfg.TokenFile, []byte(token), 0o600)) }
	look := func() error {
		_, err := r.c.Inspect(t.Context(), id)
		return err
	}
	ok(t, look())
	good := r.server.Token("haulback", "system.user", time.Hour)

	put(r.server.Token("haulback", "system.user", -time.Hour))
	wants(t, look(), "look at token_file")
	class(t, look(), Auth)
	retryable(t, look(), false)

	put(good[:len(good)-4] + "AAAA")
	wants(t, look(), "PermissionDenied")

	put("")
	n := r.calls("", func() { wants(t, look(), "it is empty") })
	if n != 0 {
		t.Errorf("an empty token: %d calls as a guest", n)
	}
	put(good)
	ok(t, look())

	ok(t, os.Chmod(r.cfg.TokenFile, 0o644))
	wants(t, look(), "give it mode 0600")
	ok(t, os.Chmod(r.cfg.TokenFile, 0o600))

	put(r.server.Token("reader", "system.view", time.Hour))
	_, err := r.c.Create(t.Context(), "w", mib, nil)
	class(t, err, Auth)
	ok(t, os.Remove(r.cfg.TokenFile))
	wants(t, look(), "token_file:")
}

// TestTokenReread: a token that is refused is read again once, and the call made
// again once with another one.
func TestTokenReread(t *testing.T) {
	r := newRig(t, osdtest.Config{Auth: true})
	id := r.volume("v", 1, 1)
	log, text := logged()
	r.cfg.Log = log
	c := r.client(r.cfg)
	must[Volume](t)(c.Inspect(t.Context(), id))

	// The client has the expired one for the present one: same size, same time.
	expired := secret(r.server.Token("haulback", "system.user", -time.Hour))
	c.token.mu.Lock()
	c.token.value = expired
	c.token.mu.Unlock()
	if n := r.calls("Inspect", func() { must[Volume](t)(c.Inspect(t.Context(), id)) }); n != 2 {
		t.Errorf("a token that was renewed: %d calls, want 2", n)
	}
	ok(t, os.WriteFile(r.cfg.TokenFile, []byte(expired), 0o600))
	var err error
	if n := r.calls("Inspect", func() { _, err = c.Inspect(t.Context(), id) }); n != 1 {
		t.Errorf("the same token again: %d calls, want 1", n)
	}
	class(t, err, Auth)

	// A server that repeats the token in its text.
	good := r.server.Token("haulback", "system.user", time.Hour)
	ok(t, os.WriteFile(r.cfg.TokenFile, []byte(good), 0o600))
	r.set(func(q *osdtest.Quirks) { q.Internal = map[string]string{"Inspect": "bad:\n" + good + "\x1b[2J"} })
	_, err = c.Inspect(t.Context(), id)
	wants(t, err, "bad: [token]")
	for _, s := range []string{err.Error(), text.String()} {
		if strings.Contains(s, good) || strings.Contains(s, string(expired)) {
			t.Errorf("the token is in %q", s)
		}
	}
	if !strings.Contains(text.String(), "call is repeated") {
		t.Error("nothing was logged")
	}
}

// TestPlaintextLeaves: nothing is said in plaintext to an address that is not
// loopback, whatever the name has become.
func TestPlaintextLeaves(t *testing.T) {
	r := newRig(t, osdtest.Config{Listen: "127.0.0.1:0", TLS: true, Auth: true})
	cfg := r.cfg
	cfg.CAFile, cfg.Plaintext = "", true
	_, err := r.client(cfg).Inspect(t.Context(), "v")
	class(t, err, Transient)
	wants(t, err, "server preface")

	cfg = r.cfg
	cfg.CAFile = ""
	_, err = r.client(cfg).Inspect(t.Context(), "v")
	wants(t, err, "certificate")

	if !(bearer{token: "t"}).RequireTransportSecurity() {
		t.Error("a token goes over a connection that is not safe")
	}
	if !strings.Contains(secret("xyz").LogValue().String(), "[token]") {
		t.Error("a token can be logged")
	}
}
