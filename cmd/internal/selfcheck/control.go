package selfcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/haulback/haulback/cmd/internal/control/client"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// control asks the control socket whether the daemon takes jobs, and reports
// whether there may be one. That none runs is for the operator to judge: a command
// line needs none.
func (c *checks) control(ctx context.Context) (runs bool) {
	if c.cfg == nil || c.cfg.Control.Socket == "" {
		return false
	}
	path := c.cfg.Control.Socket
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		c.not(Warn, "control", "systemctl start haulbackd, or haulbackd run --config "+c.cfg.File+", if it should run", "no daemon runs with this configuration: %s is not there", path)
		return false
	}
	text, err := ready(ctx, path)
	if err != nil {
		c.not(Fail, "control", why(path, err), "%s: %v", path, err)
		return true
	}
	c.ok("control", "%s: the daemon is %s", path, text)
	daemon := controlv1.NewEndpointClient(client.Socket(path))
	c.probe = func(ctx context.Context, req *controlv1.ProbeRequest) (*controlv1.ProbeResponse, error) {
		return daemon.Probe(ctx, req)
	}
	return true
}

// why is what mends a control socket that does not answer.
func why(path string, err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "run it as the user of the daemon, or as one of the socket's group: ls -l " + path
	case errors.Is(err, syscall.ECONNREFUSED):
		return "systemctl status haulbackd, journalctl -u haulbackd: nobody listens there any more"
	}
	return "journalctl -u haulbackd says what it is at"
}

// ready is what the daemon behind the socket says of itself.
func ready(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://haulbackd/readyz", nil)
	if err != nil {
		return "", err
	}
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer t.CloseIdleConnections()
	res, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close() // only read
	body, err := io.ReadAll(io.LimitReader(res.Body, 100))
	text := strings.TrimSpace(string(body))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the daemon takes no jobs: %s", text)
	}
	return text, err
}
