package vsphere

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

const (
	// callTimeout bounds one call. The slowest answer at once; what takes long is
	// a task, or an update that is waited for.
	callTimeout = 90 * time.Second
	// slowTimeout bounds a call that may read a whole change map from a datastore.
	slowTimeout = 5 * time.Minute
	// keepEvery is how often an idle session is used, far below the 30 minutes
	// after which a vCenter ends it.
	keepEvery = 5 * time.Minute
	// maxReply bounds a reply: a VM's configuration is some 100 KiB.
	maxReply = 64 << 20
	// maxSessions bounds how often one call that changes nothing is made
	// because its session had ended before: a host that logs everybody out now and then
	// costs a login each time, one that lets nobody stay is told of.
	maxSessions = 5
	// maxPassword bounds a password file.
	maxPassword = 4096
)

// Client is one host. It is safe for concurrent use.
type Client struct {
	cfg  Config
	url  *url.URL
	log  *slog.Logger
	now  func() time.Time
	keep time.Duration
	wait waits

	stop context.CancelFunc
	done sync.WaitGroup

	login chan struct{} // holds one token: the right to make a session
	mu    sync.Mutex
	cur   *link
}

// waits are the pauses of a Client, in one place so that tests can be quick.
type waits struct {
	poll  time.Duration // between two looks at what cannot be watched
	least time.Duration // before the first reconnect of a Watch; doubles
	most  time.Duration
}

// link is one session of a host.
type link struct {
	*vim25.Client
	user string // as the host calls it
}

// Open makes a Client. It does not talk to the host: the first call logs in.
// ctx bounds nothing but Open; Close ends the session.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	u, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	if _, err := cfg.tlsConfig(u.Hostname()); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		cfg: cfg, url: u, log: cfg.Log.With("host", cfg.Name), now: time.Now, keep: keepEvery,
		wait:  waits{poll: time.Second, least: time.Second, most: 30 * time.Second},
		login: make(chan struct{}, 1),
	}
	c.login <- struct{}{}
	ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.done.Go(func() { c.keepAlive(ctx) })
	return c, nil
}

// Close logs out. It is idempotent.
func (c *Client) Close(ctx context.Context) error {
	c.stop()
	c.done.Wait()
	c.mu.Lock()
	l := c.cur
	c.cur = nil
	c.mu.Unlock()
	if l == nil {
		return nil
	}
	defer l.CloseIdleConnections()
	_, err := methods.Logout(ctx, l, &types.Logout{This: *l.ServiceContent.SessionManager})
	return c.wrap(ctx, "log out", err)
}

// Host is the client with the abilities that it has.
func (c *Client) Host() *hostctl.Host {
	return &hostctl.Host{
		Name: c.cfg.Name, Kind: "vsphere",
		Compute: c, Storage: c, Registry: c, Tracker: c, Guard: c, Checker: c,
	}
}

// keepAlive uses an idle session now and then. One that has ended is forgotten,
// so that the next call does not fail first.
func (c *Client) keepAlive(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(c.keep):
		}
		l := c.current()
		if l == nil {
			continue
		}
		s, err := session.NewManager(l.Client).UserSession(ctx)
		if err == nil && s != nil {
			continue
		}
		if ctx.Err() == nil && (err == nil || isLogout(err)) {
			c.log.Debug("session has ended")
			c.drop(l)
		}
	}
}

func (c *Client) current() *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cur
}

// drop forgets a session that has ended, unless another has come since.
func (c *Client) drop(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cur == l {
		c.cur = nil
		l.CloseIdleConnections()
	}
}

// link is a session that is logged in. One caller makes it, the others wait.
func (c *Client) link(ctx context.Context) (*link, error) {
	if l := c.current(); l != nil {
		return l, nil
	}
	select {
	case <-c.login:
		defer func() { c.login <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if l := c.current(); l != nil {
		return l, nil
	}
	l, err := c.connect(ctx)
	if err != nil {
		return nil, c.wrap(ctx, "log in", err)
	}
	c.mu.Lock()
	c.cur = l
	c.mu.Unlock()
	c.log.Debug("session begins", "product", clean(l.ServiceContent.About.FullName))
	return l, nil
}

// connect logs in.
func (c *Client) connect(ctx context.Context) (*link, error) {
	password, err := c.password()
	if err != nil {
		return nil, err
	}
	t, err := c.cfg.tlsConfig(c.url.Hostname())
	if err != nil {
		return nil, err
	}
	sc := soap.NewClient(c.url, false)
	sc.UserAgent = "haulback"
	tr := sc.DefaultTransport()
	tr.Proxy, tr.TLSClientConfig, tr.DialTLSContext = nil, t, dialer(t)
	sc.Client.Transport = bounded{tr}
	sc.Namespace = "urn:" + vim25.Namespace
	sc.Version, err = serviceVersion(ctx, sc)
	c.called(ctx, "ServiceVersions", err)
	if err != nil {
		return nil, err
	}
	v, err := vim25.NewClient(ctx, timed{sc, c})
	if err != nil {
		return nil, err
	}
	v.Client = sc
	r, err := methods.Login(ctx, v, &types.Login{
		This:     *v.ServiceContent.SessionManager,
		UserName: c.cfg.User, Password: password, Locale: "en_US",
	})
	if err != nil {
		return nil, err
	}
	return &link{Client: v, user: r.Returnval.UserName}, nil
}

// serviceVersion is the newest version of the API that the host speaks: one that
// it does not know can be refused. A host that does not say gets govmomi's own.
func serviceVersion(ctx context.Context, sc *soap.Client) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	u := *sc.URL()
	u.Path = "/sdk/vimServiceVersions.xml"
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	said := struct {
		Version []string `xml:"namespace>version"`
	}{}
	err = sc.Do(ctx, q, func(r *http.Response) error {
		if r.StatusCode == http.StatusOK {
			if xml.NewDecoder(r.Body).Decode(&said) != nil {
				said.Version = nil
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if len(said.Version) == 0 || !plainVersion(said.Version[0]) {
		return vim25.Version, nil
	}
	return said.Version[0], nil
}

// plainVersion tells "8.0.2.0" from anything else: it goes into a header.
func plainVersion(s string) bool {
	return s != "" && len(s) < 20 && strings.Trim(s, "0123456789.") == ""
}

// password reads the password file, without the end of its line.
func (c *Client) password() (string, error) {
	f, err := os.Open(c.cfg.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	switch s := strings.TrimRight(string(b), "\r\n"); {
	case err != nil:
		return "", fmt.Errorf("password_file: %w", err)
	case len(b) > maxPassword:
		return "", fmt.Errorf("password_file %s: longer than %d bytes; is it the right file?", c.cfg.PasswordFile, maxPassword)
	case s == "":
		return "", fmt.Errorf("password_file %s: it is empty", c.cfg.PasswordFile)
	default:
		return s, nil
	}
}

// observe runs a call that changes nothing. When the session has ended it makes
// a new one and runs it again.
func (c *Client) observe(ctx context.Context, what string, f func(l *link) error) error {
	for try := 1; ; try++ {
		l, err := c.link(ctx)
		if err != nil {
			return err
		}
		if err = f(l); err == nil {
			return nil
		}
		if !isLogout(err) {
			return c.wrap(ctx, what, err)
		}
		c.drop(l)
		if try == maxSessions {
			return c.wrap(ctx, what, err)
		}
	}
}

// change runs a call that changes something, once. A session that has ended is
// forgotten and reported: the caller observes first.
func (c *Client) change(ctx context.Context, what string, f func(l *link) error) error {
	l, err := c.link(ctx)
	if err != nil {
		return err
	}
	if err = f(l); isLogout(err) {
		c.drop(l)
	}
	return c.wrap(ctx, what, err)
}

// timed bounds each call in time, and tells of it.
type timed struct {
	rt soap.RoundTripper
	c  *Client
}

// RoundTrip implements soap.RoundTripper.
func (t timed) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	d := callTimeout
	switch req.(type) {
	case *methods.WaitForUpdatesExBody:
		d = maxWait + callTimeout
	case *methods.QueryChangedDiskAreasBody:
		d = slowTimeout
	}
	call, cancel := context.WithTimeoutCause(ctx, d, errSlow)
	defer cancel()
	err := t.rt.RoundTrip(call, req, res)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(call), errSlow) {
		err = errSlow
	}
	t.c.called(ctx, strings.TrimSuffix(reflect.TypeOf(req).Elem().Name(), "Body"), err)
	return err
}

// called tells of a call that has ended.
func (c *Client) called(ctx context.Context, method string, err error) {
	if c.cfg.Called != nil {
		c.cfg.Called(method, class(ctx, err))
	}
}

var errSlow = errors.New("it does not answer in time")

// bounded bounds each reply in size.
type bounded struct{ rt http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.rt.RoundTrip(r)
	if err == nil {
		res.Body = http.MaxBytesReader(nil, res.Body, maxReply)
	}
	return res, err
}
