package nbd

import (
	"bytes"
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
	"testing"
	"time"

	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue writes dir/NAME-cert.pem and dir/NAME-key.pem, and the CA.
func (a authority) issue(t *testing.T, dir, name string, hosts ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, name+"-cert.pem"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, name+"-key.pem"), "PRIVATE KEY", pkcs8)
	writePEM(t, filepath.Join(dir, "ca-cert.pem"), "CERTIFICATE", a.cert.Raw)
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTLS talks to real servers that insist on TLS and on a client certificate.
func TestTLS(t *testing.T) {
	ca, serverDir, clientDir := newAuthority(t), t.TempDir(), t.TempDir()
	ca.issue(t, serverDir, "server", "127.0.0.1", "storage.example")
	ca.issue(t, clientDir, "client")
	stranger, strangerDir := newAuthority(t), t.TempDir()
	stranger.issue(t, strangerDir, "client")
	bare := t.TempDir() // the CA without a certificate of the client's own
	writePEM(t, filepath.Join(bare, "ca-cert.pem"), "CERTIFICATE", ca.cert.Raw)
	half := t.TempDir()
	ca.issue(t, half, "client")
	if err := os.Remove(filepath.Join(half, "client-key.pem")); err != nil {
		t.Fatal(err)
	}

	img := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(img, bytes.Repeat([]byte("haulback"), 1<<17), 0o600); err != nil {
		t.Fatal(err)
	}
	servers := map[string]*nbdtest.Server{
		"nbdkit": nbdtest.TCP(t, "nbdkit", "-f", "--tls=require", "--tls-verify-peer", "--tls-certificates="+serverDir, "file", img),
		"qemu-nbd": nbdtest.TCP(t, "qemu-nbd", "-t", "-e", "8", "-f", "raw", "--object", "tls-creds-x509,id=tls0,endpoint=server,verify-peer=on,dir="+serverDir,
			"--tls-creds", "tls0", img),
	}
	for name, s := range servers {
		secure := strings.Replace(s.URI, "nbd://", "nbds://", 1)
		for _, c := range []struct{ name, uri, want string }{
			{"good", secure + "?tls-certificates=" + clientDir, ""},
			{"good by another name", secure + "?tls-hostname=storage.example&tls-certificates=" + clientDir, ""},
			{"unverified", secure + "?tls-verify-peer=0&tls-certificates=" + clientDir, ""},
			{"wrong name", secure + "?tls-hostname=other.example&tls-certificates=" + clientDir, "other.example"},
			{"unknown CA", secure + "?tls-certificates=" + strangerDir, "unknown authority"},
			{"system CAs", secure, "TLS"},
			{"no client certificate", secure + "?tls-certificates=" + bare, ""}, // the refusal's words differ
			{"half a client certificate", secure + "?tls-certificates=" + half, "client certificate"},
			{"no directory", secure + "?tls-certificates=/nowhere", "no such file"},
			{"plain", s.URI, "use nbds://"},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				u, err := ParseURI(c.uri)
				if err != nil {
					t.Fatal(err)
				}
				client, err := Open(t.Context(), Config{URI: u})
				bad := c.want != "" || c.name == "no client certificate"
				if bad {
					if err == nil || !strings.Contains(err.Error(), c.want) {
						t.Fatalf("got %v, want an error with %q", err, c.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				p := make([]byte, 1<<20-16)
				if _, err := client.ReadAt(p, 16); err != nil || !bytes.Equal(p, bytes.Repeat([]byte("haulback"), len(p)/8)) {
					t.Errorf("read over TLS: %v, or wrong bytes", err)
				}
				if client.Connections() < 2 {
					t.Errorf("%d connections", client.Connections())
				}
			})
		}
	}
}

// TestTLSWrites: header and payload travel whole, in both directions, at once.
func TestTLSWrites(t *testing.T) {
	ca, serverDir, clientDir := newAuthority(t), t.TempDir(), t.TempDir()
	ca.issue(t, serverDir, "server", "storage.example")
	ca.issue(t, clientDir, "client")
	s := nbdtest.Unix(t, "nbdkit", "-f", "--tls=require", "--tls-certificates="+serverDir, "memory", "8M")
	u, err := ParseURI(strings.Replace(s.URI, "nbd+unix", "nbds+unix", 1) + "&tls-hostname=storage.example&tls-certificates=" + clientDir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), Config{URI: u, Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := make([]byte, 8<<20)
	_, _ = rand.Read(want) // never fails
	if _, err := c.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read back over TLS: %v, or wrong bytes", err)
	}
}

// TestTLSInjection: bytes that follow the agreement to STARTTLS in plain came
// from someone in between.
func TestTLSInjection(t *testing.T) {
	u := listen(t, func(s hostile) {
		s.answer(map[uint32]func(){optStartTLS: func() {
			s.send(be64(magicOptReply), be32(optStartTLS), be32(repAck), be32(0), []byte("injected"))
		}})
	})
	u.TLS, u.Hostname = true, "h"
	_, err := Open(t.Context(), Config{URI: u})
	wantFault(t, err, "8 unencrypted bytes", false)
}

// TestTLSNeverWithout: a server that refuses STARTTLS is not talked to.
func TestTLSNeverWithout(t *testing.T) {
	var more []uint32
	done := make(chan struct{})
	u := listen(t, func(s hostile) {
		defer close(done)
		s.greet()
		if s.option() == optStartTLS {
			s.reply(optStartTLS, repErrPolicy, []byte("no TLS here"))
		}
		for o := s.option(); o != 0; o = s.option() {
			more = append(more, o)
		}
	})
	u.TLS, u.Hostname = true, "h"
	_, err := Open(t.Context(), Config{URI: u})
	wantFault(t, err, "server refuses STARTTLS: its policy forbids it (server: no TLS here)", false)
	<-done
	for _, o := range more {
		if o != optAbort {
			t.Errorf("option %d was sent in plain", o)
		}
	}
}
