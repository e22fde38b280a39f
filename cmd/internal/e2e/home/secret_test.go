package home

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// guarded is a rig whose secrets are known: nothing else may have one.
type guarded struct {
	*rig
	a     *aviary
	dir   string // of the files that have secrets
	fail  string // a file: while it is there, the hook fails
	posts atomic.Int64
}

// put makes a file with a secret, which it owns.
func (g *guarded) put(name, secret string) string {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	must(g.t, os.WriteFile(path, []byte(secret+"\n"), 0o600))
	g.a.own[path] = true
	return path
}

// run runs haulback at a site, and keeps what it says.
func (g *guarded) run(s *site, args ...string) cmdtest.Result {
	g.t.Helper()
	r := s.Run(args...)
	g.a.see("the output of haulback "+strings.Join(args, " "), r.Out+r.Stderr)
	return r
}

// call posts to the control socket of a site as any program may.
func (g *guarded) call(s *site, path, body string) string {
	g.t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.State, "control.sock"))
	}}}
	method, in := http.MethodGet, io.Reader(nil)
	if body != "" {
		method, in = http.MethodPost, strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(g.t.Context(), method, "http://haulback"+path, in)
	must(g.t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	must(g.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(g.t, err)
	g.a.see("the answer to "+path, string(text))
	return string(text)
}

// private is the key of a PEM file as it is calculated with.
func private(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	block, _ := pem.Decode(text)
	return block.Bytes[len(block.Bytes)-32:] // the seed of an Ed25519 key is the end of its PKCS #8
}

// certificate makes a self-signed one for the control port.
func (g *guarded) certificate() (cert, key string) {
	g.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(g.t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	must(g.t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	must(g.t, err)
	key = g.put("control.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
	scalar, err := k.Bytes()
	must(g.t, err)
	g.a.key("the key of the control port", scalar, key)
	cert = filepath.Join(g.dir, "control.pem")
	must(g.t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return cert, key
}

// program is a script that keeps its arguments and its environment, and then says
// what it is told to.
func (g *guarded) program(name, then string) (path, kept string) {
	g.t.Helper()
	path, kept = filepath.Join(g.dir, "bin", name), filepath.Join(g.t.TempDir(), "kept")
	must(g.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(g.t, os.WriteFile(path, []byte("#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >>"+kept+"\n"+then+"\n"), 0o700))
	return path, kept
}

// newGuarded starts both daemons with every kind of secret that a configuration can
// name: by path at the one site, by credential at the other.
func newGuarded(t *testing.T) (g *guarded, kept []string) {
	t.Helper()
	r := newRig(t, options{})
	r.home.stop(t)
	r.dr.stop(t)
	g = &guarded{rig: r, a: newAviary(t), dir: t.TempDir()}
	g.fail = filepath.Join(g.dir, "fail")
	hook, keptHook := g.program("hook", "echo the hook has failed; test ! -e "+g.fail)
	_, keptWorker := g.program("haulback-vddk", "exit 1")
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.Header.Get("Authorization"), "Bearer ") {
			g.posts.Add(1)
		}
	}))
	t.Cleanup(web.Close)
	shelf, err := osdtest.New(osdtest.Config{Dir: t.TempDir(), Auth: true})
	must(t, err)
	t.Cleanup(func() { must(t, shelf.Close()) })
	_, err = shelf.AddVolume("v", mib, strings.NewReader(""))
	must(t, err)
	token, err := os.ReadFile(shelf.TokenFile())
	must(t, err)
	cert, key := g.certificate()
	for _, s := range []*site{r.home, r.dr} {
		path := filepath.Join(s.State, "identity.key")
		g.a.key("the identity of "+s.Name, private(t, path), path)
		g.a.own[filepath.Join(s.Dir, s.Name+".password")] = true
		s.config += fmt.Sprintf("[log]\nlevel = \"debug\"\n[[openstorage]]\nname = \"px\"\nendpoint = %q\ntoken_file = \"px\"\n", shelf.Endpoint())
		s.env = []string{"CREDENTIALS_DIRECTORY=" + g.dir, "PATH=" + filepath.Join(g.dir, "bin") + ":" + os.Getenv("PATH")}
		g.a.text("the password of "+s.Name, s.vs.Password(), g.put("vcenter-"+s.Name, s.vs.Password()))
	}
	g.a.text("the token of OpenStorage", strings.TrimSpace(string(token)), g.put("px", strings.TrimSpace(string(token))))
	secret := func(name string) (string, string) {
		text := rand.Text() + `/+ "&%<` + rand.Text()
		g.a.text("the "+name, text)
		return g.put(name, text), text
	}
	secret("hook-token")
	secret("replication-token")
	vddk, _ := secret("vddk-password")
	r.home.config = strings.Replace(r.home.config, filepath.Join(r.home.Dir, "home.password"), "vcenter-home", 1) + fmt.Sprintf(
		"[control]\nlisten = \"127.0.0.1:0\"\ncert = %q\nkey = %q\nclient_ca = %q\nadmins = [\"nobody\"]\n"+
			"[[hook]]\nname = \"keep\"\nsteps = [1]\nwhen = \"before\"\ncommand = [%q, \"argument\"]\n"+
			"[[hook]]\nname = \"tell\"\nsteps = [1]\nwhen = \"after\"\nurl = %q\ntoken_file = \"hook-token\"\n[replication]\nurl = %q\ntoken_file = %q\n"+
			"[[host]]\nname = \"gone\"\nurl = \"https://127.0.0.1:1\"\nuser = \"u\"\npassword_file = \"vcenter-home\"\n"+
			"[[export]]\nname = \"vix\"\nrole = \"host\"\nvddk = \"vddk://127.0.0.1?user=u&password-file=%s&thumbprint=%s&libdir=/nowhere\"\n",
		cert, key, cert, hook, web.URL, web.URL, filepath.Join(g.dir, "replication-token"), vddk, strings.Repeat("aa:", 19)+"aa")
	r.dr.config += fmt.Sprintf("[[export]]\nname = \"locked\"\nuri = %q\nrole = \"target\"\npeers = [\"home\"]\nticket = true\ncontrollers = [\"home\"]\n", r.dr.Disk("locked", mib, 0))
	r.dr.start(t, r.dr.listen)
	r.home.start(t, anyPort)
	return g, []string{keptHook, keptWorker}
}

// TestNoSecretGetsOut: whatever happens, a secret is in its own file and nowhere
// else: no argument, environment, log, answer, metric, database, journal or record.
func TestNoSecretGetsOut(t *testing.T) {
	t.Parallel()
	slow(t)
	g, kept := newGuarded(t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); g.a.watch(stop) }()
	daemons := []*cmdtest.Process{g.home.daemon, g.dr.daemon}

	g.looksAndMistakes()
	g.failedLogins()
	g.disks()
	g.failbacks()

	g.call(g.home, "/metrics", "")
	g.call(g.dr, "/metrics", "")
	g.home.stop(t)
	g.dr.daemon.Signal(syscall.SIGQUIT) // a dump of what all goroutines do
	g.a.see("the dump of dr", g.dr.daemon.Wait().Stderr)
	close(stop)
	<-done
	for _, d := range daemons {
		if strings.Contains(d.Stderr(), "panic:") || !strings.Contains(d.Stderr(), `"level":"DEBUG"`) {
			t.Errorf("a panic, or nothing at level debug:\n%s", d.Stderr())
		}
		g.a.see("a daemon's log", d.Stdout()+d.Stderr())
	}
	for _, f := range kept {
		text, err := os.ReadFile(f)
		if err != nil || len(text) == 0 {
			t.Errorf("a program of the site did not run: %v", err)
		}
		g.a.see("arguments and environment of "+f, string(text))
	}
	if g.posts.Load() < 2 {
		t.Errorf("%d POSTs had a token", g.posts.Load())
	}
	g.a.search(g.home.Dir, g.dr.Dir, g.dir)
	for _, unit := range []string{"haulbackd", "haulback-controller"} {
		text, err := os.ReadFile("../../../../deploy/systemd/" + unit + ".service")
		if err != nil || !strings.Contains(string(text), "\nLimitCORE=0\n") {
			t.Errorf("%s.service lets a core be written, which has secrets: %v", unit, err)
		}
	}
}

// looksAndMistakes looks at configurations, good and bad ones with a secret in them,
// and reloads both.
func (g *guarded) looksAndMistakes() {
	g.t.Helper()
	for _, s := range []*site{g.home, g.dr} {
		good := filepath.Join(s.Dir, "haulbackd.toml")
		for _, args := range [][]string{
			{"config", "check", good}, {"config", "show", "--effective", good}, {"selfcheck", "--json", "--config", good},
		} {
			g.run(s, args...)
		}
	}
	const written = `writtenbysomebody/+ "&%<intoaconfiguration`
	dropIn := filepath.Join(g.home.Dir, "haulbackd.toml.d", "90.toml")
	bad := filepath.Join(g.dir, "bad.toml")
	g.a.text("what somebody wrote into a configuration", written, dropIn, bad)
	must(g.t, os.Mkdir(filepath.Dir(dropIn), 0o700))
	reloads := 0
	for _, text := range []string{
		fmt.Sprintf("[[host]]\npassword = %q\nuser = 1\n", written), fmt.Sprintf("token = \"\"\"\n%s\\q\"\"\"\n", strings.ReplaceAll(written, `"`, "")),
		"[[hook]]\nname = \"x\"\nurl = 'https://u:" + written + "@h/'\n", "[[export]]\nname = \"x\"\nuri = 'nbd://u:" + written + "@h/x'\nrole = \"source\"\n",
		"[[hook]]\nname = \"x\"\ncommand = ['/bin/true', '--password=" + written + "']\n",
	} {
		must(g.t, os.WriteFile(bad, []byte(text), 0o600))
		if r := g.run(g.home, "config", "check", "--json", bad); r.Code != 10 {
			g.t.Errorf("%q: exit code %d", text, r.Code)
		}
		r := programs.Run(g.t, "haulbackd", "run", "--config", bad)
		g.a.see("haulbackd run", r.Out+r.Stderr)
		must(g.t, os.WriteFile(dropIn, []byte(text), 0o600))
		reloads++
		g.home.daemon.Signal(syscall.SIGHUP)
		cmdtest.Await(g.t, "the reload", func() bool { return strings.Count(g.home.daemon.Stderr(), "has a mistake") >= reloads })
	}
	must(g.t, os.WriteFile(dropIn, []byte("[limits]\nrate = \"1GiB\"\n"), 0o600))
	g.home.daemon.Signal(syscall.SIGHUP)
	cmdtest.Await(g.t, "the reload", func() bool { return strings.Contains(g.home.daemon.Stderr(), `"msg":"configuration reloaded"`) })
	g.dr.daemon.Signal(syscall.SIGHUP)
}

// failedLogins has hosts refuse, and not be there.
func (g *guarded) failedLogins() {
	g.t.Helper()
	const wrong = `anoldpasswordthat/+"&%<isnotgoodanymore` // one word, as a token is
	files := []string{filepath.Join(g.dir, "vcenter-home"), filepath.Join(g.dr.Dir, "dr.password"), filepath.Join(g.dir, "px")}
	g.a.text("a wrong password", wrong, files...)
	var right [][]byte
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(g.t, err)
		right = append(right, text)
		must(g.t, os.WriteFile(f, []byte(wrong), 0o600))
	}
	g.home.vs.DropSessions()
	g.dr.vs.DropSessions()
	file := filepath.Join(g.home.Dir, "haulbackd.toml")
	env := append(g.home.env, "HAULBACK_STATE_DIR="+g.home.State)
	r := programs.StartEnv(g.t, env, "haulback", "--state-dir", g.home.State, "selfcheck", "--config", file).Wait()
	g.a.see("selfcheck with a wrong password", r.Out+r.Stderr)
	if !strings.Contains(r.Out, "FAIL  host home") {
		g.t.Errorf("a wrong password: %s", r.Out)
	}
	for _, host := range []string{"home", "gone"} {
		g.run(g.home, "failback", "vm", "put", "x"+host, "--original", host+"/x", "--replica", "dr/y")
		g.run(g.home, "failback", "failover", "x"+host)
		g.run(g.home, "--json", "failback", "plan", "x"+host)
	}
	for i, f := range files {
		must(g.t, os.WriteFile(f, right[i], 0o600))
	}
}

// disks has jobs and copies with secrets: by file, by ticket, and by a caller who
// writes one into a URI.
func (g *guarded) disks() {
	g.t.Helper()
	const inURI = `writtenbyacaller0?/+ "&%<intoauniversalidentifier`
	g.a.text("what a caller wrote into a URI", inURI)
	body, err := json.Marshal(map[string]any{"id": "uri", "spec": map[string]any{"mode": "MODE_VERIFY", "disks": []any{map[string]any{
		"source": "nbd://u:" + inURI + "@127.0.0.1:1/x", "target": g.home.Disk("plain", mib, 1),
	}}}})
	must(g.t, err)
	g.call(g.home, "/haulback.v1.Jobs/Submit", string(body))
	vix := "vddk://127.0.0.1/vm-1?disk=%5Bds%5D+a%2Fa.vmdk&user=u&password-file=" + filepath.Join(g.dir, "vddk-password") + "&thumbprint=" + strings.Repeat("aa:", 19) + "aa&libdir=/nowhere"
	g.run(g.home, "--json", "job", "submit", "--id", "vix", "--wait", "--mode", "verify", "--retry", "1ns", vix, filepath.Join(g.home.Dir, "plain"))
	g.run(g.dr, "--json", "job", "submit", "--id", "px", "--wait", "--mode", "verify", "--retry", "1ns", "osd://px/v", g.dr.Disk("plain", mib, 1))

	device, run := "", uuid.NewString()
	for line := range strings.Lines(g.run(g.dr, "--json", "probe", filepath.Join(g.dr.Dir, "locked")).Out) {
		var p struct{ Identity string }
		must(g.t, json.Unmarshal([]byte(line), &p))
		device += p.Identity
	}
	issued := g.home.OK("--json", "ticket", "issue", "--export", "locked", "--op", "write", "--source-peer", "self", "--target-peer", "dr", "--run", run,
		"--device", device, "--size", fmt.Sprint(mib))
	var ticket struct{ Ticket string }
	must(g.t, json.Unmarshal([]byte(issued.Out), &ticket))
	file := g.put("ticket", ticket.Ticket)
	g.a.text("the ticket", ticket.Ticket, file)
	if r := g.run(g.home, "copy", filepath.Join(g.home.Dir, "plain"), "haulback://"+g.dr.listen+"/locked?peer=dr", "--run", run, "--target-ticket", file); r.Code != 0 {
		g.t.Errorf("a copy with a ticket: exit code %d\n%s", r.Code, r.Stderr)
	}
}

// failbacks halts one at a hook, continues it, and cancels it.
func (g *guarded) failbacks() {
	g.t.Helper()
	p := g.vm(g.t, "web", mib)
	must(g.t, os.WriteFile(g.fail, nil, 0o600))
	id := p.begin(g.t, failback.Spec{Switch: byHand()})
	g.await(g.t, id, "the halt", func(s *failback.Status) bool { return s.Halted != nil })
	g.run(g.home, "failback", "status", "web")
	must(g.t, os.Remove(g.fail))
	_, err := g.api.Continue(g.t.Context(), &controlv1.ContinueRequest{Id: id})
	must(g.t, err)
	g.await(g.t, id, "the passes", standing)
	g.switchNow(g.t, id)
	g.await(g.t, id, "state Failback", brought)
	g.commit(g.t, id)
	for _, path := range []string{"Failbacks/List", "Failbacks/ListPairs", "Jobs/List", "Daemon/GetInfo"} {
		g.call(g.home, "/haulback.v1."+path, "{}")
		g.call(g.dr, "/haulback.v1."+path, "{}")
	}
	g.call(g.home, "/haulback.v1.Failbacks/Get", fmt.Sprintf(`{"id":%q}`, id))
	g.run(g.home, "--json", "failback", "record", id)
	g.run(g.home, "audit", "show")
	g.run(g.dr, "audit", "show")
}
