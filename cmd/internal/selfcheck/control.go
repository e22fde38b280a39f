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
)

// control asks the control socket whether the daemon takes jobs. That no daemon
// runs is for the operator to judge: a command line needs none.
func (c *checks) control(ctx context.Context) {
	if c.cfg == nil || c.cfg.Control.Socket == "" {
		return
	}
	path := c.cfg.Control.Socket
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		c.not(Warn, "control", "start haulbackd, if it should run", "no daemon runs with this configuration: %s is not there", path)
		return
	}
	text, err := ready(ctx, path)
	if err != nil {
		c.not(Fail, "control", "is haulbackd running, and may this user use its socket?", "%s: %v", path, err)
		return
	}
	c.ok("control", "%s: the daemon is %s", path, text)
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
