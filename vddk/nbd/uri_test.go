package nbd

import (
	"strings"
	"testing"
)

func TestParseURI(t *testing.T) {
	for _, c := range []struct {
		in   string
		want URI
	}{
		{"nbd://example.com:10809/export", URI{Network: "tcp", Address: "example.com:10809", Export: "export"}},
		{"nbd://example.com/disk", URI{Network: "tcp", Address: "example.com:10809", Export: "disk"}},
		{"nbd://example.com/", URI{Network: "tcp", Address: "example.com:10809"}},
		{"nbd://example.com", URI{Network: "tcp", Address: "example.com:10809"}},
		{"nbd://example.com//disk", URI{Network: "tcp", Address: "example.com:10809", Export: "/disk"}},
		{"nbd://example.com/hello%20world", URI{Network: "tcp", Address: "example.com:10809", Export: "hello world"}},
		{"nbd://[::1]/a", URI{Network: "tcp", Address: "[::1]:10809", Export: "a"}},
		{"nbd://[fe80::1%25eth0]:123/a", URI{Network: "tcp", Address: "[fe80::1%eth0]:123", Export: "a"}},
		{"NBD://10.0.0.1:1", URI{Network: "tcp", Address: "10.0.0.1:1"}},
		{"nbd+unix:///disk?socket=/run/a.sock", URI{Network: "unix", Address: "/run/a.sock", Export: "disk"}},
		{"nbd+unix:///?socket=/run/a+b%26c.sock", URI{Network: "unix", Address: "/run/a+b&c.sock"}},
		{"nbd+unix:////x%3Fy?socket=/s", URI{Network: "unix", Address: "/s", Export: "/x?y"}},
		{"nbds://h/a?tls-certificates=/etc/pki", URI{Network: "tcp", Address: "h:10809", Export: "a", TLS: true, Certificates: "/etc/pki"}},
		{"nbds://joe@h/?tls-hostname=db&tls-verify-peer=1", URI{Network: "tcp", Address: "h:10809", TLS: true, User: "joe", Hostname: "db"}},
		{"nbds://h/?tls-verify-peer=0&tls-type=x509", URI{Network: "tcp", Address: "h:10809", TLS: true, SkipVerify: true}},
		{"nbds+unix:///a?socket=/s&tls-hostname=h", URI{Network: "unix", Address: "/s", Export: "a", TLS: true, Hostname: "h"}},
	} {
		got, err := ParseURI(c.in)
		if err != nil || got != c.want {
			t.Errorf("ParseURI(%q): got %+v, %v, want %+v", c.in, got, err, c.want)
			continue
		}
		if again, err := ParseURI(got.String()); err != nil || again != got {
			t.Errorf("ParseURI(%q) of %q: got %+v, %v, want %+v", got.String(), c.in, again, err, got)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "unknown scheme"},
		{"/dev/sda", "unknown scheme"},
		{"http://h/a", "unknown scheme"},
		{"nbd:host:10809", "needs // after"},
		{"nbd:unix:/run/a.sock", "needs // after"},
		{"nbd:///a", "names no host"},
		{"nbd://h:0/a", "port"},
		{"nbd://h:65536/a", "port"},
		{"nbd://h:x/a", "port"},
		{"nbd://h/a#b", "fragment"},
		{"nbd://h/a#", "fragment"},
		{"nbd://h/%00", "zero byte"},
		{"nbd://h/%ff", "UTF-8"},
		{"nbd://h/" + strings.Repeat("x", 4097), "4097 bytes"},
		{"nbd://h/a?socket=/s", "belongs to nbd+unix"},
		{"nbd://h/a?compress=1", `unknown parameter "compress"`},
		{"nbd://h/a?x", "has no value"},
		{"nbd://h/a?&", "has no value"},
		{"nbd://h/a?tls-hostname=b", "serves TLS only"},
		{"nbd://joe@h/a", "serves TLS only"},
		{"nbds://joe:secret@h/a", "password"},
		{"nbd+unix:///a", "needs the parameter socket"},
		{"nbd+unix:///a?socket=s", "must be absolute"},
		{"nbd+unix:///a?socket=%00abstract", "abstract"},
		{"nbd+unix:///a?socket=", "is empty"},
		{"nbd+unix:///a?socket=/s&socket=/t", "twice"},
		{"nbd+unix:///a?socket=/" + strings.Repeat("x", 107), "108 bytes"},
		{"nbd+unix://h/a?socket=/s", `host "h"`},
		{"nbds+unix:///a?socket=/s", "needs tls-hostname"},
		{"nbds://h/a?tls-psk-file=/k", "pre-shared keys"},
		{"nbds://h/a?tls-type=psk", "pre-shared keys"},
		{"nbds://h/a?tls-type=anon", "only x509"},
		{"nbds://h/a?tls-verify-peer=yes", "neither 0 nor 1"},
		{"nbds://h/a?tls-certificates=pki", "must be absolute"},
		{"nbd+vsock://1/a", "vsock"},
	} {
		got, err := ParseURI(c.in)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseURI(%q): got %+v, %v, want an error with %q", c.in, got, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseURI(%q): the error shows the password: %v", c.in, err)
		}
	}
}

// FuzzParseURI: what is understood is written in a form that means the same.
func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"nbd://h/a", "nbds://u@[::1]:1/%2F?tls-certificates=/p", "nbd+unix:////a?socket=/s", "nbds+unix:///?socket=/%25&tls-hostname=h&tls-verify-peer=0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		if again, err := ParseURI(u.String()); err != nil || again != u {
			t.Errorf("%q is %+v, written %q, which is %+v, %v", s, u, u.String(), again, err)
		}
	})
}
