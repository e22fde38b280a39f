package config

import "testing"

func TestRedact(t *testing.T) {
	for _, c := range []struct {
		key      string
		value    any
		want     any
		redacted bool
	}{
		{"listen", "127.0.0.1:1", "127.0.0.1:1", false},
		{"password", "hunter2", hidden, true},
		{"api_token", "x", hidden, true},
		{"password", "", "", false},
		{"password_file", "/etc/x", "/etc/x", false},
		{"key_file", "/etc/k", "/etc/k", false},
		{"workers", 3, 3, false},
		{"uri", "/srv/a.img", "/srv/a.img", false},
		{"uri", "vddk://vc/vm-1?disk=%5Bds%5D+a&password-file=/p", "vddk://vc/vm-1?disk=%5Bds%5D+a&password-file=/p", false},
		{"uri", "nbd://u:secret@h/x", "nbd://u:redacted@h/x", true},
		{"uri", "x://h/y?password=hunter2&a=b", "x://h/y?a=b&password=redacted", true},
	} {
		if got, redacted := redact(c.key, c.value); got != c.want || redacted != c.redacted {
			t.Errorf("%s = %v: got %v, %v", c.key, c.value, got, redacted)
		}
	}
}
