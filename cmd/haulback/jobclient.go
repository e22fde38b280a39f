package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// systemSocket is where the shipped unit has the control socket.
const systemSocket = "/run/haulback/control.sock"

// controlFlags say which daemon is called, and who calls.
type controlFlags struct {
	socket, url   string
	cert, key, ca string
}

func addControlFlags(cmd *cobra.Command, f *controlFlags) {
	p := cmd.PersistentFlags()
	p.StringVar(&f.socket, "socket", "", "`PATH` of the daemon's control socket (default "+systemSocket+", or control.sock in the state directory)")
	p.StringVar(&f.url, "control", "", "`URL` of the daemon's control port instead, as in https://proxy:7421; needs --cert, --key and --ca")
	p.StringVar(&f.cert, "cert", "", "`FILE` with the certificate of this caller, PEM")
	p.StringVar(&f.key, "key", "", "`FILE` with the key of --cert, PEM")
	p.StringVar(&f.ca, "ca", "", "`FILE` with the authority of the daemon's certificate, PEM")
}

// caller calls one daemon.
type caller struct {
	daemon    controlv1.DaemonClient
	jobs      controlv1.JobsClient
	failbacks controlv1.FailbacksClient
	where     string // for messages
	unix      bool
	alert     func(ctx context.Context) error // asks a daemon's port why it lets nobody in; nil: a socket
}

// caller makes the client; nothing is dialled yet.
func (g *global) caller(f *controlFlags) (*caller, error) {
	if f.url != "" {
		return f.remote()
	}
	if f.cert != "" || f.key != "" || f.ca != "" {
		return nil, usage("--cert, --key and --ca go with --control; a socket has no certificates")
	}
	path := f.socket
	if path == "" {
		path = systemSocket
		if _, err := os.Stat(path); err != nil || g.stateDir != "" {
			s, err := g.site()
			if err != nil {
				return nil, err
			}
			path = filepath.Join(s.Dir(), filepath.Base(systemSocket))
		}
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	return newCaller(tr, "http://haulback", path, true), nil
}

// remote is a daemon's TCP port.
func (f *controlFlags) remote() (*caller, error) {
	u, err := url.Parse(f.url)
	switch {
	case f.socket != "":
		return nil, usage("--socket and --control: name one of them")
	case err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "":
		return nil, usage("--control %q: write https://HOST:PORT", f.url)
	case f.cert == "" || f.key == "" || f.ca == "":
		return nil, usage("--control: --cert, --key and --ca are needed; a daemon lets nobody in without a certificate")
	}
	cert, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, usage("--cert %s, --key %s: %w", f.cert, f.key, err)
	}
	pem, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, usage("--ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usage("--ca %s: no certificate in it; PEM is wanted", f.ca)
	}
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: pool},
		ForceAttemptHTTP2: true, TLSHandshakeTimeout: callTime,
	}
	c := newCaller(tr, "https://"+u.Host, f.url, false)
	c.alert = func(ctx context.Context) error { return alertOf(ctx, u.Host, tr.TLSClientConfig) }
	return c, nil
}

// alertTime is how long a port may take to say why it closes.
const alertTime = 2 * time.Second

// alertOf is what a port answers to a handshake. In TLS 1.3 a client is done
// before its certificate was looked at: whether a request meets the refusal, or a
// connection that is closed already, is a matter of luck, and a read is none.
func alertOf(ctx context.Context, addr string, conf *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, alertTime)
	defer cancel()
	conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(alertTime))
	_, err = conn.Read(make([]byte, 1))
	return err
}

// refused reports whether err is a TLS alert of the other side.
func refused(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// callTime bounds a call that is not a watch: a daemon answers within a minute.
const callTime = 70 * time.Second

func newCaller(tr *http.Transport, base, where string, unix bool) *caller {
	client := connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: tr}, base))
	return &caller{daemon: controlv1.NewDaemonClient(client), jobs: controlv1.NewJobsClient(client), failbacks: controlv1.NewFailbacksClient(client), where: where, unix: unix}
}

// call bounds a call and says what its error means.
func (c *caller) call(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return c.explain(ctx, do(ctx))
}

// explain gives an error of the API the exit code that the daemon has for it,
// and one of the way there what to look at first.
func (c *caller) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), exitcode.ErrCanceled):
		return context.Cause(ctx)
	}
	if _, ok := jobpb.Info(err); ok {
		f := jobpb.Refusal(err)
		return &exitcode.Said{Code: exitcode.Code(f.Exit), Text: f.Text}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%s: %w", c.where, err)
	}
	text := c.where + ": " + err.Error()
	switch {
	case errors.Is(err, os.ErrPermission):
		return &exitcode.Said{Code: exitcode.Auth, Text: fmt.Sprintf("the control socket %s: permission denied; call as root, as the daemon's user, or as a member of its [control] group", c.where)}
	case c.unix && (errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		text = fmt.Sprintf("no daemon at the control socket %s; start haulbackd (systemctl start haulbackd), or name its socket with --socket", c.where)
	case !c.unix && (refused(err) || refused(c.alert(ctx))):
		return &exitcode.Said{Code: exitcode.Auth, Text: text + "; the daemon did not accept the certificate"}
	}
	return &exitcode.Said{Code: exitcode.Unavailable, Text: text}
}

// away reports whether err may pass: the daemon stops, or is not there.
func away(err error) bool {
	info, ok := jobpb.Info(err)
	return !ok || info.Reason == job.ReasonDraining || info.Reason == job.ReasonEngine || info.Reason == job.ReasonUnavailable
}
