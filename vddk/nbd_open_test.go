package vddk_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/vddk/nbd/nbdtest"
)

// TestNBDHold: one writer, or any number of readers, by identity: the same
// export through another path is the same, another export is not.
func TestNBDHold(t *testing.T) {
	s := nbdtest.Unix(t, "nbdkit", "-f", "memory", "1M")
	writer := openServer(t, s, vddk.Options{Mode: vddk.ReadWrite})
	_, socket, _ := strings.Cut(s.URI, "socket=")
	link := filepath.Join(filepath.Dir(socket), "link")
	if err := os.Symlink(socket, link); err != nil {
		t.Fatal(err)
	}
	again := "nbd+unix:///?socket=" + link
	for _, mode := range []vddk.Mode{vddk.ReadOnly, vddk.ReadWrite} {
		d, err := vddk.OpenNBD(t.Context(), again, vddk.Options{Mode: mode})
		if _, locked := errors.AsType[*vddk.LockedError](err); !locked || !errors.Is(err, syscall.EBUSY) {
			t.Errorf("open (mode %d) beside a writer: got %v, %v, want a LockedError", mode, d, err)
		}
	}
	other, err := vddk.OpenNBD(t.Context(), "nbd+unix:///other?socket="+link, vddk.Options{Mode: vddk.ReadWrite})
	if err != nil {
		t.Fatalf("another export of the server: %v", err)
	}
	other.Close()
	writer.Close()
	writer.Close()
	d, err := vddk.OpenNBD(t.Context(), again, vddk.Options{Mode: vddk.ReadWrite})
	if err != nil {
		t.Fatalf("after the writer has closed: %v", err)
	}
	if d.Identity() != writer.Identity() {
		t.Errorf("identity through a link: got %q, want %q", d.Identity(), writer.Identity())
	}
	d.Close()
}

func TestNBDFailedOpenHoldsNothing(t *testing.T) {
	s := nbdtest.Unix(t, "nbdkit", "-f", "-r", "memory", "1M")
	for range 2 {
		d, err := vddk.OpenNBD(t.Context(), s.URI, vddk.Options{Mode: vddk.ReadWrite})
		if err == nil || !strings.Contains(err.Error(), "read-only option") {
			t.Errorf("write to a read-only export: got %v, %v", d, err)
		}
	}
	openServer(t, s, vddk.Options{})
}

// TestNBDRemedies: what an operator can mend comes with a remedy.
func TestNBDRemedies(t *testing.T) {
	s := nbdtest.Unix(t, "qemu-nbd", "-t", "-x", "vda", "-f", "raw", newImage(t, t.TempDir(), noise(1<<20)))
	_, socket, _ := strings.Cut(s.URI, "socket=")
	gone := filepath.Join(t.TempDir(), "gone.sock")
	for uri, want := range map[string]string{
		"nbd+unix:///vdb?socket=" + socket:                         "nbdinfo --list",
		"nbds+unix:///vda?tls-hostname=localhost&socket=" + socket: "without TLS",
		"nbd+unix:///?socket=" + gone:                              "no server listens there",
		"nbd://127.0.0.1:1/":                                       "no server listens there",
	} {
		if d, err := vddk.OpenNBD(t.Context(), uri, vddk.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("open %s: got %v, %v, want an error with %q", uri, d, err, want)
		}
	}
	verify := func(err error) error { return fmt.Errorf("TLS: %w", &tls.CertificateVerificationError{Err: err}) }
	for _, c := range []struct {
		err  error
		want string
	}{
		{verify(x509.UnknownAuthorityError{}), "tls-certificates=DIR"},
		{verify(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "a"}), "tls-hostname=NAME"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, "client-cert.pem"},
		{&nbd.LostError{Addr: "a:1", Cause: syscall.ECONNRESET}, "client-cert.pem"},
	} {
		err := vddk.NBDRemedy(nbd.URI{TLS: true}, c.err)
		if !strings.HasPrefix(err.Error(), c.err.Error()) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want a remedy with %q", c.err, err, c.want)
		}
	}
}

func TestNBDRefusesCreate(t *testing.T) {
	_, err := vddk.OpenNBD(t.Context(), "nbd://127.0.0.1:1/", vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 1})
	if err == nil || !strings.Contains(err.Error(), "create") {
		t.Errorf("create: got %v", err)
	}
}

func TestNBDDescribe(t *testing.T) {
	s := nbdtest.TCP(t, "nbdkit", "-f", "--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=512", "blocksize-preferred=4096", "blocksize-maximum=64K")
	d := openServer(t, s, vddk.Options{Mode: vddk.ReadWrite})
	got := d.Describe()
	if got.Kind != "nbd" || got.Size != 1<<20 || got.SectorSize != 512 || got.ReadOnly || !got.CanMap || !got.CanPunch || got.Coldness != "server" {
		t.Errorf("description: got %+v", got)
	}
	if want := "TCP, 4 connections, blocks of 512 to 65536 bytes (preferred 4096)"; got.Transport != want {
		t.Errorf("transport: got %q, want %q", got.Transport, want)
	}
	for _, word := range []string{"not encrypted", "no lock"} {
		if !strings.Contains(got.Warning, word) {
			t.Errorf("warning: %q is not in %q", word, got.Warning)
		}
	}
	if !strings.HasPrefix(got.Identity, "nbd:127.0.0.1:") {
		t.Errorf("identity: got %q", got.Identity)
	}
}
