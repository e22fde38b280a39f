package vddk

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

const (
	sha1Hex = "00112233445566778899aabbccddeeff00112233"
	needed  = "disk=[ds 1] vm/vm.vmdk&user=root&password-file=/p&thumbprint=" + sha1Hex
)

func TestParseVDDKURI(t *testing.T) {
	base := vddkURI{
		host: "vc.example", vm: "vm-42", disk: "[ds 1] vm/vm.vmdk", user: "root", passwordFile: "/p",
		thumbprint: "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33", transports: []string{"nbdssl"},
		libDir: "/usr/lib/vmware-vix-disklib", stateDir: "/var/lib/haulback/vddk", guard: true,
	}
	for _, c := range []struct {
		in     string
		change func(*vddkURI)
	}{
		{"vddk://vc.example/vm-42?" + needed, func(*vddkURI) {}},
		{"VDDK://vc.example/moref=vm-42?" + strings.ReplaceAll(needed, " ", "%20"), func(*vddkURI) {}},
		{"vddk://vc.example/vm-42?" + strings.ReplaceAll(needed, " ", "+"), func(*vddkURI) {}},
		{"vddk://[2001:db8::1]:8443/7?" + needed, func(u *vddkURI) { u.host, u.port, u.vm = "2001:db8::1", 8443, "7" }},
		{"vddk://vc.example/vm-42?" + needed + "&snapshot=snapshot-7&transports=hotadd:san&libdir=/opt/vddk/&state=/x&guard=no", func(u *vddkURI) {
			u.snapshot, u.transports, u.libDir, u.stateDir, u.guard = "snapshot-7", []string{"hotadd", "san"}, "/opt/vddk", "/x", false
		}},
		{"vddk://vc.example/vm-42?" + strings.Replace(needed, "user=root&password-file", "cookie-file", 1) + "&snapshot=moref=7-snapshot-3", func(u *vddkURI) {
			u.user, u.passwordFile, u.cookieFile, u.snapshot = "", "", "/p", "7-snapshot-3"
		}},
		{"vddk://vc.example/vm-42?" + strings.Replace(needed, "vm/vm.vmdk", "a%26b/c%2Bd%23.vmdk", 1), func(u *vddkURI) { u.disk = "[ds 1] a&b/c+d#.vmdk" }},
	} {
		want := base
		c.change(&want)
		if got, err := parseVDDKURI(c.in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", c.in, got, err, want)
		}
	}
}

func TestParseVDDKURIRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"vddk://":                                                         "no host",
		"vddk:vc/vm-1":                                                    "not of the form vddk://HOST/MOREF",
		"vddk://root:pw@vc/vm-1?x":                                        "password stays in a file",
		"vddk://vc/":                                                      "not a managed object reference",
		"vddk://vc/web01?" + needed:                                       `VM "web01": not a managed object reference`,
		"vddk://vc/vm-1/x?":                                               "not a managed",
		"vddk://vc:0/vm-1?":                                               "port",
		"vddk://vc:/vm-1?":                                                "port",
		"vddk://vc:99999/vm-1?":                                           "port",
		"vddk://vc/vm-1?" + needed + "#x":                                 "fragment",
		"vddk://vc/vm-1":                                                  "its parameters are missing; the least is ?disk=",
		"vddk://vc/vm-1?" + needed + "&password=x":                        `unknown parameter "password"`,
		"vddk://vc/vm-1?" + needed + "&user=x":                            "user is there twice",
		"vddk://vc/vm-1?" + needed + "&snapshot=":                         "snapshot: empty",
		"vddk://vc/vm-1?" + needed + "&snapshot=x":                        "not a managed object reference",
		"vddk://vc/vm-1?" + needed + "&cookie-file=/c":                    "one of the parameters password-file and cookie-file",
		"vddk://vc/vm-1?" + needed + "&transports=nbd:scsi":               "a list of nbdssl:nbd:hotadd:san:file",
		"vddk://vc/vm-1?" + needed + "&transports=nbd:nbd":                "a list of",
		"vddk://vc/vm-1?" + needed + "&libdir=lib":                        "must be absolute",
		"vddk://vc/vm-1?" + needed + "&libdir=/a:b":                       "colon",
		"vddk://vc/vm-1?" + needed + "&guard=true":                        "yes or no",
		"vddk://vc/vm-1?" + needed + "&state=%zz":                         "invalid URL escape",
		"vddk://vc/vm-1?" + strings.Replace(needed, "[ds 1] vm", "vm", 1): "written [datastore] folder/file.vmdk",
		"vddk://vc/vm-1?" + strings.Replace(needed, "vm/vm.vmdk", "vm/%00.vmdk", 1):    "not text",
		"vddk://vc/vm-1?" + strings.Replace(needed, sha1Hex, sha1Hex[2:], 1):           "SHA-1 fingerprint",
		"vddk://vc/vm-1?" + strings.Replace(needed, "user=root&", "", 1):               "user is needed",
		"vddk://vc/vm-1?" + strings.Replace(needed, "&thumbprint="+sha1Hex, "", 1):     "openssl s_client -connect vc:443",
		"vddk://vc/vm-1?" + strings.Replace(needed, "disk=[ds 1] vm/vm.vmdk&", "", 1):  "disk is needed",
		"vddk://vc/vm-1?" + strings.Replace(needed, "&password-file=/p", "", 1) + "&x": "unknown parameter",
	} {
		if u, err := parseVDDKURI(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %q", in, u, err, want)
		}
	}
}

func TestVDDKTarget(t *testing.T) {
	for vm, want := range map[string]int{"vm-42": 2 << 20, "42": 23 << 20} {
		u, err := parseVDDKURI("vddk://h/" + vm + "?" + needed)
		if got := u.target(true); err != nil || got.MaxRequest != want || got.Transports != "nbdssl" {
			t.Errorf("%s: got %+v, %v", vm, got, err)
		}
	}
}

func TestReadSecret(t *testing.T) {
	path := t.TempDir() + "/secret"
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string // of the error
	}{
		{"hunter22\n", 0o600, ""},
		{"hunter22", 0o400, ""},
		{"hunter22\r\n", 0o600, ""},
		{"hunter22", 0o640, "mode 0640 lets others read it; chmod 600 it"},
		{"hunter22", 0o604, "chmod 600"},
		{"", 0o600, "not one line"},
		{"\n", 0o600, "not one line"},
		{"a\nb", 0o600, "not one line"},
		{strings.Repeat("x", maxSecret+1), 0o600, "more than"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := readSecret("password", path)
		switch {
		case c.want == "" && (err != nil || string(got) != "hunter22"):
			t.Errorf("%q with mode %o: %v", c.text, c.mode, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter")):
			t.Errorf("%q with mode %o: got %v, want %q", c.text, c.mode, err, c.want)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{t.TempDir(), "/dev/null", "/nonexistent"} {
		if _, err := readSecret("password", path); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}

func FuzzParseVDDKURI(f *testing.F) {
	for _, s := range []string{"vddk://vc/vm-42?" + needed, "vddk://[::1]:1/7?" + needed + "&snapshot=snapshot-1&guard=no", "vddk://h/1?disk=%5Ba%5D+b.vmdk"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseVDDKURI(s)
		if err != nil {
			return
		}
		for _, text := range []string{u.host, u.vm, u.disk, u.snapshot, u.user, u.passwordFile, u.cookieFile, u.thumbprint, u.libDir, u.stateDir} {
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q: control character in %q", s, text)
			}
		}
		if strings.ContainsFunc(u.identity(), func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q: identity %q is not one printable word", s, u.identity())
		}
		if u.host == "" || u.disk == "" || len(u.thumbprint) < 59 || len(u.transports) == 0 {
			t.Errorf("%q: incomplete: %+v", s, u)
		}
	})
}
