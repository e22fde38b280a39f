package control

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/control/client"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// stranger is a user and a group that nothing here belongs to.
const (
	stranger      = 64321
	strangerGroup = 64322
)

// curlAs runs curl as another user, with groups of ours.
func (r *rig) curlAs(uid, gid uint32, groups []uint32, args ...string) reply {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "curl", append([]string{"-sS", "--max-time", "10", "-w", "\n%{http_code}", "--unix-socket", r.socket}, args...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	out, _ := cmd.CombinedOutput()
	at := strings.LastIndex(string(out), "\n")
	p := reply{body: string(out[:max(at, 0)]), code: cmd.ProcessState.ExitCode()}
	if p.code == 0 && string(out[at+1:]) == "200" {
		p.status = 200
	} else if p.code == 0 && string(out[at+1:]) == "403" {
		p.status = 403
	}
	return p
}

// TestPeers lets in who has authority, and believes no mode of a file.
func TestPeers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
	r := newRig(t, func(c *Config) { c.Group, c.Metrics = "64322", scraped })
	st, err := os.Stat(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o660 || st.Sys().(*syscall.Stat_t).Gid != strangerGroup {
		t.Errorf("socket: %v, gid %d", st.Mode(), st.Sys().(*syscall.Stat_t).Gid)
	}
	const list = "http://haulback/haulback.v1.Jobs/List?encoding=json&message=%7B%7D"
	if p := r.curlAs(stranger, stranger, nil, list); p.code != 7 {
		t.Errorf("the mode of the socket lets a stranger in: %+v", p)
	}
	if err := os.Chmod(r.socket, 0o666); err != nil { // as an operator may
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		gid    uint32
		groups []uint32
		status int
	}{
		{"a stranger", stranger, []uint32{1, 2, 3}, 403},
		{"of the group", strangerGroup, nil, 200},
		{"of the group as well", stranger, []uint32{1, 2, strangerGroup}, 200},
		{"of many groups", stranger, append(slices.Repeat([]uint32{9}, 200), strangerGroup), 200},
	} {
		p := r.curlAs(stranger, c.gid, c.groups, list)
		if p.status != c.status {
			t.Errorf("%s: %+v", c.name, p)
		}
		if c.status != 403 {
			continue
		}
		if a, info := p.info(t); a.Code != "permission_denied" || info.Reason != "AUTH" || !strings.Contains(a.Message, "uid 64321") {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
	if e := r.audited("/haulback.v1.Jobs/List", "AUTH"); e.Caller != "uid 64321" || e.Role != "" {
		t.Errorf("audit: %+v", e)
	}
	if p := r.curlAs(stranger, stranger, nil, "http://haulback/v1/events"); p.status != 403 {
		t.Errorf("events: %+v", p)
	}
	if p := r.curlAs(stranger, stranger, nil, "http://haulback/metrics"); p.status != 403 {
		t.Errorf("metrics: %+v", p)
	}
	if p := r.curlAs(stranger, stranger, nil, "http://haulback/healthz"); p.status != 200 {
		t.Errorf("health: %+v", p)
	}

	// who loses his right loses his stream
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", "-sSN", "--unix-socket", r.socket, "http://haulback/v1/events")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: strangerGroup}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "his stream", func() bool { r.s.mu.Lock(); defer r.s.mu.Unlock(); return len(r.s.live) == 1 })
	if err := r.s.Reload(Access{Group: "nobody-has-this-group"}); err == nil {
		t.Error("reload with a group that is not there")
	}
	if err := r.s.Reload(Access{}); err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(out)
	_ = cmd.Wait()
	if !strings.Contains(string(text), `"reason":"AUTH"`) {
		t.Errorf("the end of his stream: %q", text)
	}
	if p := r.curlAs(stranger, strangerGroup, nil, list); p.status != 403 {
		t.Errorf("after the reload: %+v", p)
	}
	if st, err := os.Stat(r.socket); err != nil || st.Sys().(*syscall.Stat_t).Gid == strangerGroup {
		t.Errorf("the socket still has the old group: %v", err)
	}
}

// authority is a CA of a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make(name, nil, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// make writes NAME.crt and NAME.key.
func (a *authority) make(name string, by *authority, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(a.path(file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out, key
}

func (a *authority) client(name string, dns ...string) {
	a.make(name, a, &x509.Certificate{DNSNames: dns, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

func (a *authority) server(name string) {
	a.make(name, a, &x509.Certificate{
		DNSNames: []string{"haulback.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// scraped stands for metrics.
var scraped = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "scraped") })

// TestTLS lets in who has a certificate that is listed, for what it is listed.
func TestTLS(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	ca.server("server")
	ca.client("backup", "backup.example.org")
	ca.client("monitor")
	ca.client("unlisted")
	other.client("backup", "backup.example.org")
	access := Access{TLS: TLS{
		Cert: ca.path("server.crt"), Key: ca.path("server.key"), CA: ca.path("ca.crt"),
		Allow: []Caller{{"backup.example.org", Admin}, {"monitor", Viewer}},
	}}
	r := newRig(t, func(c *Config) { c.Listen, c.Access, c.Metrics = "127.0.0.1:0", access, scraped })
	if end := r.s.CertificateEnds(); time.Until(end) <= 0 || time.Until(end) > 20*365*24*time.Hour {
		t.Errorf("the certificate ends at %v", end)
	}
	base := "https://" + r.s.Addrs()[1].String()
	call := func(who *authority, name, method, body string, more ...string) reply {
		args := append([]string{"--cacert", ca.path("ca.crt"), "-H", "Content-Type: application/json", "--data-binary", "@-", base + method}, more...)
		if name != "" {
			args = append(args, "--cert", who.path(name+".crt"), "--key", who.path(name+".key"))
		}
		return curl(t, body, args...)
	}
	const submit, get, probe = "/haulback.v1.Jobs/Submit", "/haulback.v1.Jobs/Get", "/haulback.v1.Endpoint/Probe"
	id := `{"id":"a"}`
	for _, c := range []struct {
		name   string
		who    *authority
		cert   string
		method string
		body   string
		more   []string
		status int // 0: no answer
		text   string
	}{
		{"plain text", nil, "", submit, id, []string{"--url", strings.Replace(base, "https", "http", 1) + submit}, 0, ""},
		{"no certificate", nil, "", get, id, nil, 0, ""},
		{"certificate of another CA", other, "backup", get, id, nil, 0, ""},
		{"TLS 1.2", ca, "backup", get, id, []string{"--tls-max", "1.2"}, 0, ""},
		{"not listed", ca, "unlisted", get, id, nil, 403, "not on the list"},
		{"admin", ca, "backup", submit, spec("a", "vm"), nil, 200, "cert backup.example.org"},
		{"admin over HTTP/1.1", ca, "backup", get, id, []string{"--http1.1"}, 200, ""},
		{"viewer reads", ca, "monitor", get, id, nil, 200, ""},
		{"viewer submits", ca, "monitor", submit, spec("b", "vm"), nil, 403, "viewer"},
		{"viewer opens a disk", ca, "monitor", probe, `{"uri":"/etc/shadow"}`, nil, 403, "viewer"},
		{"viewer tries what is not there", ca, "monitor", "/haulback.v1.Jobs/Undo", `{}`, nil, 403, "viewer"},
		{"another name", ca, "backup", get, id, []string{"-H", "Host: evil.example"}, 403, "no name of this daemon"},
	} {
		p := call(c.who, c.cert, c.method, c.body, c.more...)
		if c.status == 0 {
			if p.status == 200 || p.code == 0 && p.status != 400 {
				t.Errorf("%s: %+v", c.name, p)
			}
			continue
		}
		if p.status != c.status || !strings.Contains(p.body, c.text) {
			t.Errorf("%s: %+v", c.name, p)
		}
		if c.status == 403 {
			if _, info := p.info(t); info.Reason != "AUTH" {
				t.Errorf("%s: %v", c.name, info)
			}
		}
	}
	for who, want := range map[string]int{"backup": 200, "monitor": 200, "unlisted": 403} {
		args := []string{"--cacert", ca.path("ca.crt"), "--cert", ca.path(who + ".crt"), "--key", ca.path(who + ".key"), base + "/metrics"}
		if p := curl(t, "", args...); p.status != want || (p.body == "scraped") != (want == 200) {
			t.Errorf("metrics for %s: %+v", who, p)
		}
	}
	if e := r.audited(submit, "AUTH"); e.Caller != "cert monitor" || e.Role != Viewer || e.From == "" {
		t.Errorf("audit: %+v", e)
	}
	own, err := client.TLS(r.s.Addrs()[1].String(), client.Files{Cert: ca.path("monitor.crt"), Key: ca.path("monitor.key"), CA: ca.path("ca.crt")})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := controlv1.NewJobsClient(own).Get(t.Context(), &controlv1.GetRequest{Id: "a"}); err != nil || resp.Job.Owner != "cert backup.example.org" {
		t.Errorf("our own client: %v %v", resp, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := r.sse(ctx, "--fail", "--cacert", ca.path("ca.crt"), "--cert", ca.path("monitor.crt"), "--key", ca.path("monitor.key"), base+"/v1/events")
	next(t, events, "viewer follows", func(e event) bool { return e.kind == "synced" })
	cancel()

	// another certificate and another list, with no restart and no connection cut
	conn := r.keep(t, ca, base)
	if got := conn(); got != 200 {
		t.Fatalf("on a connection that is kept: %d", got)
	}
	bad := access
	bad.TLS.Key = ca.path("monitor.key")
	if err := r.s.Reload(bad); err == nil {
		t.Error("a key that does not fit the certificate")
	}
	if got := conn(); got != 200 {
		t.Errorf("after a reload with a mistake: %d", got)
	}
	access.TLS.Allow = []Caller{{"monitor", Viewer}}
	if err := r.s.Reload(access); err != nil {
		t.Fatal(err)
	}
	if got := conn(); got != 403 {
		t.Errorf("taken off the list, on the old connection: %d", got)
	}
	access.TLS.Allow, access.TLS.CA = []Caller{{"backup", Admin}}, other.path("other.crt")
	if err := r.s.Reload(access); err != nil {
		t.Fatal(err)
	}
	if got := conn(); got != 403 {
		t.Errorf("the CA is no longer ours, on the old connection: %d", got)
	}
	if p := call(other, "backup", get, id); p.status != 200 {
		t.Errorf("the new CA: %+v", p)
	}
}

// keep holds one connection and asks on it.
func (r *rig) keep(t *testing.T, ca *authority, base string) func() int {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(ca.path("backup.crt"), ca.path("backup.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	conn, err := tls.Dial("tcp", strings.TrimPrefix(base, "https://"), &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return func() int { return ask(t, conn) }
}
