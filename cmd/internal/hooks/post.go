package hooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/config"
)

const (
	firstWait = time.Second // before a second try; doubled for each further one
	maxAnswer = 4096        // bytes of an answer that are read
	maxSecret = 4096        // bytes of a token
	maxCA     = 1 << 20     // bytes of a file of CAs
)

// post is one call of an address.
type post struct {
	*config.Call
	key  string
	wait time.Duration
}

// do posts until the server says yes or no, or the time is over.
func (p *post) do(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.Timeout, errTimeout)
	defer cancel()
	client, err := p.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	for wait := p.wait; ; wait *= 2 {
		again, err := p.once(ctx, client, body)
		if err == nil || !again {
			return err
		}
		if until, _ := ctx.Deadline(); ctx.Err() != nil || time.Until(until) < wait {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// client trusts whom the configuration says, and follows nobody elsewhere.
func (p *post) client() (*http.Client, error) {
	t := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, MaxResponseHeaderBytes: 1 << 16, DisableCompression: true}
	if p.CAFile != "" {
		pem, err := readSome(p.CAFile, maxCA)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s has no certificate in PEM", p.CAFile)
		}
	}
	if strings.HasPrefix(p.URL, "http:") {
		t.DialContext = (&net.Dialer{Control: onlyHere}).DialContext
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// onlyHere keeps what is not encrypted on this machine, whatever a name resolves
// to.
func onlyHere(_, address string, _ syscall.RawConn) error {
	if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%s is not this machine; use https", address)
	}
	return nil
}

// once posts; again says that another try may help.
func (p *post) once(ctx context.Context, client *http.Client, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", build.Agent("haulbackd"))
	req.Header.Set("Idempotency-Key", p.key)
	if p.TokenFile != "" {
		token, err := readSome(p.TokenFile, maxSecret)
		if err != nil {
			return false, fmt.Errorf("token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	res, err := client.Do(req)
	if err != nil {
		return transportError(ctx, p.Timeout, err)
	}
	defer res.Body.Close() // only read
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if res.StatusCode/100 == 2 {
		return false, nil
	}
	status := clean(res.Status)
	if res.StatusCode/100 == 3 {
		status += ", and redirects are not followed; write the address that it means"
	}
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	return again, fmt.Errorf("it answers %s%s", status, said(string(text), len(text) == maxAnswer))
}

// transportError is why there was no answer. The address is in the message
// already, perhaps with less of it.
func transportError(ctx context.Context, timeout time.Duration, err error) (again bool, _ error) {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	if context.Cause(ctx) == errTimeout {
		return false, fmt.Errorf("no answer within %v", timeout)
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	text := clean(err.Error())
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false, fmt.Errorf("its certificate is not believed: %s; name its CA: ca_file", text)
	}
	return true, errors.New(text)
}

// readSome reads a small file.
func readSome(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, err
}
