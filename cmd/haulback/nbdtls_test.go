package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// authority makes the directory that libnbd and qemu want: ca-cert.pem,
// client-cert.pem, client-key.pem; and the server's own two files beside them.
func authority(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	caKey := writeCertificate(t, dir, "ca", ca, ca, nil)
	for _, name := range []string{"server", "client"} {
		writeCertificate(t, dir, name, &x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}, ca, caKey)
	}
	return dir
}

func writeCertificate(t *testing.T, dir, name string, c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, name+"-cert.pem"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, name+"-key.pem"), "PRIVATE KEY", private)
	return key
}

func writePEM(t *testing.T, path, kind string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestNBDServeTLS lets in who has a certificate of the authority, over TCP, and
// nobody else.
func TestNBDServeTLS(t *testing.T) {
	t.Parallel()
	s := cmdtest.NewSite(t, &programs, "a")
	a, out, certs := s.Disk("a", 3*mib, 1), filepath.Join(s.Dir, "out"), authority(t)
	v := serveNBD(
		t, s, a, "--listen", "127.0.0.1:0", "--name", "x", "--tls-cert", certs+"/server-cert.pem", "--tls-key", certs+"/server-key.pem", "--tls-ca", certs+"/ca-cert.pem")
	if !strings.HasPrefix(v.uri, "nbds://127.0.0.1:") || !strings.HasSuffix(v.uri, "/x") {
		t.Errorf("URI %s", v.uri)
	}
	if text := mustTool(t, "nbdinfo", v.uri+"?tls-certificates="+certs); !strings.Contains(text, "with TLS") {
		t.Errorf("nbdinfo: %s", text)
	}
	mustTool(t, "nbdcopy", v.uri+"?tls-certificates="+certs, out)
	cmdtest.MustEqual(t, a, out)
	mustTool(t, "qemu-img", "compare", "--object", "tls-creds-x509,id=c,dir="+certs+",endpoint=client", "--image-opts", "-U",
		"driver=nbd,host=127.0.0.1,tls-creds=c,export=x,port="+strings.Split(strings.TrimPrefix(v.uri, "nbds://127.0.0.1:"), "/")[0], "driver=file,filename="+out)
	stranger := authority(t)
	for _, f := range []string{"client-cert.pem", "client-key.pem"} { // the right authority for the server, the wrong one for the client
		b, err := os.ReadFile(filepath.Join(stranger, f))
		if err != nil {
			t.Fatal(err)
		}
		mixed := filepath.Join(s.Dir, "mixed")
		if err := os.MkdirAll(mixed, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mixed, f), b, 0o600); err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(filepath.Join(certs, "ca-cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mixed, "ca-cert.pem"), ca, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := tool(t, "nbdinfo", v.uri+"?tls-certificates="+filepath.Join(s.Dir, "mixed")); err == nil {
		t.Errorf("a client of another authority got in:\n%s", text)
	}
	if text, err := tool(t, "nbdinfo", strings.Replace(v.uri, "nbds:", "nbd:", 1)); err == nil {
		t.Errorf("a client without TLS got in:\n%s", text)
	}
	v.end(t, syscall.SIGTERM)
	v = serveNBD(t, s, a, "--listen", "127.0.0.1:0", "--insecure-loopback")
	mustTool(t, "nbdinfo", v.uri)
	v.end(t, syscall.SIGTERM)
}
