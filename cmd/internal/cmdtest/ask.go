package cmdtest

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// Scrape asks for metrics, on the unix socket where there is one.
func Scrape(t testing.TB, socket, url string) string {
	t.Helper()
	return Ask(t, socket, http.MethodGet, url, "")
}

// Ask makes a request, on the unix socket where one is named, and returns the
// answer. Another status than 200 fails the test.
func Ask(t testing.TB, socket, method, url, body string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if socket != "" {
			network, addr = "unix", socket
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v\n%s", method, url, resp.Status, err, b)
	}
	return string(b)
}
