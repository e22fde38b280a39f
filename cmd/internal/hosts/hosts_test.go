package hosts

import (
	"crypto/sha256"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/config"
)

// TestExplain: whom nobody vouches for is told with the line that would trust it,
// and is sent nothing.
func TestExplain(t *testing.T) {
	asked := 0
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that we break off
	s.StartTLS()
	defer s.Close()
	sum := sha256.Sum256(s.Certificate().Raw)
	right := config.Thumbprint(sum[:])
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Thumbprint(t.Context(), s.URL+"/sdk"); err != nil || got != right {
		t.Errorf("Thumbprint: %v, %v, want %v", got, err, right)
	}
	for _, thumbprint := range []string{"", strings.Repeat("AB:", 31) + "AB"} {
		h := &config.Host{Name: "home", URL: s.URL, User: "u", PasswordFile: password, Thumbprint: thumbprint}
		c, err := openVSphere(t.Context(), h, &Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.About(t.Context())
		if !OfCertificate(err) {
			t.Errorf("thumbprint %q: %v is not of a certificate", thumbprint, err)
		}
		if text := Explain(t.Context(), h, err).Error(); strings.Count(text, `thumbprint = "`+right+`"`) != 1 || !strings.Contains(text, "console") {
			t.Errorf("thumbprint %q: %s", thumbprint, text)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if asked > 0 {
		t.Errorf("%d requests were sent to a host that is not trusted", asked)
	}
	other := errors.New("other")
	if got := Explain(t.Context(), &config.Host{URL: "https://127.0.0.1:1"}, other); got != other {
		t.Errorf("another error became %v", got)
	}
	if _, err := Thumbprint(t.Context(), "https://127.0.0.1:1"); err == nil {
		t.Error("nobody has a certificate")
	}
}
