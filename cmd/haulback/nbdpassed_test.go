package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestNBDPlaceWantsCertificates: TLS alone keeps nobody out, on no TCP port,
// whoever made it.
func TestNBDPlaceWantsCertificates(t *testing.T) {
	dir := authority(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	unix, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	with := func(f nbdFlags) *nbdFlags {
		f.tlsCert, f.tlsKey = dir+"/server-cert.pem", dir+"/server-key.pem"
		return &f
	}
	for _, c := range []struct {
		name      string
		flags     *nbdFlags
		tcp, unix bool
	}{
		{"no TLS", &nbdFlags{}, false, true},
		{"TLS", with(nbdFlags{}), false, true},
		{"TLS, any client", with(nbdFlags{anyClient: true}), true, true},
		{"TLS, authority", with(nbdFlags{tlsCA: dir + "/ca-cert.pem"}), true, true},
	} {
		p, err := newNBDPlace(c.flags)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.checkPassed(tcp); (err == nil) != c.tcp {
			t.Errorf("%s: a TCP socket that was passed: %v", c.name, err)
		}
		if err := p.checkPassed(unix); (err == nil) != c.unix {
			t.Errorf("%s: a unix socket that was passed: %v", c.name, err)
		}
		if c.flags.tlsCert == "" {
			continue
		}
		c.flags.listen = "127.0.0.1:0"
		if _, err := newNBDPlace(c.flags); (err == nil) != c.tcp || err != nil && !strings.Contains(err.Error(), "--any-client") {
			t.Errorf("%s: --listen on loopback: %v", c.name, err)
		}
	}
}
