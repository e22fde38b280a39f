package hooks

import (
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/config"
)

// server is a real HTTPS server, and the file with its certificate.
func server(t *testing.T, h http.HandlerFunc) (s *httptest.Server, ca string) {
	t.Helper()
	s = httptest.NewTLSServer(h)
	s.Config.ErrorLog = nil
	t.Cleanup(s.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, ca
}

func TestPost(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	s, ca := server(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
	})
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t0p-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hook := config.Hook{Name: "dns", Steps: []string{"power-on"}, After: true, Call: config.Call{URL: s.URL + "/hook?x=1", CAFile: ca, TokenFile: token, Timeout: time.Minute}}
	c, _ := caller(t, config.Config{Hooks: []config.Hook{hook}})
	if err := c.Run(t.Context(), moment("power-on", 9, true)); err != nil {
		t.Fatal(err)
	}
	if got.Method != "POST" || got.URL.String() != "/hook?x=1" || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Authorization") != "Bearer t0p-secret" ||
		got.Header.Get("Idempotency-Key") != "fb-1/00000000-0000-4000-8000-000000000001/power-on/after/dns/" {
		t.Errorf("%s %s %v", got.Method, got.URL, got.Header)
	}
	if !strings.Contains(string(body), `"step":"power-on"`) || strings.Contains(string(body), "t0p") {
		t.Errorf("body %s", body)
	}
	if got := c.Named("power-on"); len(got) != 1 || strings.Contains(got[0], "x=1") || !strings.HasPrefix(got[0], "after: dns (POST https://127.0.0.1:") {
		t.Errorf("Named: %q", got)
	}
}

// TestPostAnswers: which answers are a yes, a no, and worth another try.
func TestPostAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		codes []int // one after another; the last for ever
		calls int32
		want  string // empty: no error
	}{
		{"yes", []int{200}, 1, ""},
		{"no content", []int{204}, 1, ""},
		{"no", []int{400}, 1, "it answers 400 Bad Request: no ?[31mway"},
		{"broken", []int{500}, 1, "500"},
		{"busy, then yes", []int{503, 429, 502, 504, 200}, 5, ""},
		{"redirect", []int{307}, 1, "redirects are not followed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			s, ca := server(t, func(w http.ResponseWriter, _ *http.Request) {
				i := min(int(n.Add(1)), len(c.codes))
				w.Header().Set("Location", "https://192.0.2.1/")
				w.WriteHeader(c.codes[i-1])
				if c.codes[i-1] != http.StatusNoContent {
					_, _ = io.WriteString(w, "no \x1b[31mway\n")
				}
			})
			p := &post{Call: &config.Call{URL: s.URL, CAFile: ca, Timeout: time.Minute}, wait: time.Microsecond}
			err := p.do(t.Context(), nil)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if n.Load() != c.calls {
				t.Errorf("%d calls, want %d", n.Load(), c.calls)
			}
		})
	}
}

func TestPostFails(t *testing.T) {
	t.Parallel()
	s, ca := server(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(plain.Close)
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, maxSecret+1), 0o600); err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		call config.Call
		want string
	}{
		{"silent", t.Context(), config.Call{URL: s.URL, CAFile: ca, Timeout: 50 * time.Millisecond}, "no answer within 50ms"},
		{"no CA", t.Context(), config.Call{URL: s.URL, Timeout: time.Minute}, "name its CA: ca_file"},
		{"CA that is none", t.Context(), config.Call{URL: s.URL, CAFile: big, Timeout: time.Minute}, "no certificate in PEM"},
		{"no file of CAs", t.Context(), config.Call{URL: s.URL, CAFile: big + "x", Timeout: time.Minute}, "no such file"},
		{"no token", t.Context(), config.Call{URL: s.URL, CAFile: ca, TokenFile: big + "x", Timeout: time.Minute}, "token_file"},
		{"large token", t.Context(), config.Call{URL: s.URL, CAFile: ca, TokenFile: big, Timeout: time.Minute}, "more than 4096 bytes"},
		{"nobody there", t.Context(), config.Call{URL: dead.URL, Timeout: time.Second}, "refused"},
		{"not encrypted, elsewhere", t.Context(), config.Call{URL: "http://192.0.2.1/", Timeout: time.Second}, "use https"},
		{"not encrypted, here", t.Context(), config.Call{URL: plain.URL, Timeout: time.Minute}, ""},
		{"canceled", canceled, config.Call{URL: s.URL, CAFile: ca, Timeout: time.Minute}, "canceled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := &post{Call: &c.call, wait: time.Hour} // no second try
			err := p.do(c.ctx, nil)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
