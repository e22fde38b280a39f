package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/job"
)

const (
	controllerLine = "[controller]\n"
	hostText       = "[[host]]\nname = \"home\"\nurl = \"https://vc.example.org\"\nuser = \"u\"\npassword_file = \"/dev/null\"\n"
	hookText       = "[[hook]]\nname = \"dns\"\nsteps = [\"power-on\"]\nwhen = \"after\"\n"
)

// sum is a thumbprint of n bytes.
func sum(n int) string { return strings.TrimSuffix(strings.Repeat("ab:", n), ":") }

func controllerMistakes() []mistake {
	return []mistake{
		{"host without the role", hostText, 1, []string{"host:", "[controller]"}},
		{"hook without the role", hookText, 1, []string{"hook:", "[controller]"}},
		{"group without the role", "[[group]]\nname = \"g\"\n", 1, []string{"group:", "[controller]"}},
		{"replication without the role", "[replication]\n", 1, []string{"replication:", "[controller]"}},
		{"unknown key", controllerLine + "hosts = 3\n", 2, []string{"controller.hosts"}},
		{"name", controllerLine + "name = \"a b\"\n", 2, []string{"controller name \"a b\""}},
		{"no VMs", controllerLine + "vms = 0\n", 2, []string{"controller.vms = 0", "1 to 1024"}},
		{"disks", controllerLine + "disks = 5000\n", 2, []string{"controller.disks = 5000"}},

		{"host unknown key", controllerLine + hostText + "insecure = true\n", 7, []string{"insecure"}},
		{"host name", controllerLine + strings.Replace(hostText, "home", "-", 1), 3, []string{"host name"}},
		{"host twice", controllerLine + hostText + hostText, 8, []string{"used twice", ":4"}},
		{"host kind", controllerLine + hostText + "kind = \"hyperv\"\n", 7, []string{"hyperv", "vsphere"}},
		{"host without url", controllerLine + strings.Replace(hostText, "url = \"https://vc.example.org\"\n", "", 1), 2, []string{"url is missing", "https://HOST"}},
		{"host http", controllerLine + strings.Replace(hostText, "https", "http", 1), 4, []string{"only https"}},
		{"host path", controllerLine + strings.Replace(hostText, "org", "org/ui/", 1), 4, []string{"/ui/", "https://HOST/sdk"}},
		{"host login in url", controllerLine + strings.Replace(hostText, "vc.", "u:hunter2@vc.", 1), 4, []string{"login", "password_file"}},
		{"host without user", controllerLine + strings.Replace(hostText, "user = \"u\"\n", "", 1), 2, []string{"user is missing"}},
		{"host without password", controllerLine + strings.Replace(hostText, "password_file = \"/dev/null\"\n", "", 1), 2, []string{"password_file is missing"}},
		{"host relative password", controllerLine + strings.Replace(hostText, "/dev/null", "a/b", 1), 6, []string{"a/b", "absolute", "LoadCredential"}},
		{"SHA-1", controllerLine + hostText + "thumbprint = \"" + sum(20) + "\"\n", 7, []string{"SHA-1", "SHA-256"}},
		{"short thumbprint", controllerLine + hostText + "thumbprint = \"" + sum(31) + "\"\n", 7, []string{"31 bytes", "32"}},
		{"thumbprint of words", controllerLine + hostText + "thumbprint = \"any\"\n", 7, []string{"hexadecimal"}},
		{"thumbprint and CA", controllerLine + hostText + "thumbprint = \"" + sum(32) + "\"\nca_file = \"/ca\"\n", 7, []string{"thumbprint and ca_file"}},
		{"relative CA", controllerLine + hostText + "ca_file = \"ca\"\n", 7, []string{"ca_file", "absolute"}},
		{"host mover", controllerLine + hostText + "mover = \"a b\"\n", 7, []string{"a b", "self"}},
		{"host export", controllerLine + hostText + "export = \"a/b\"\n", 7, []string{"a/b"}},

		{"hook twice", controllerLine + hookText + "url = \"https://h/\"\n" + hookText + "url = \"https://h/\"\n", 8, []string{"hook \"dns\"", "twice", ":4"}},
		{"hook without steps", controllerLine + strings.Replace(hookText, "\"power-on\"", "", 1) + "url = \"https://h/\"\n", 4, []string{"steps is missing"}},
		{"hook step", controllerLine + strings.Replace(hookText, "power-on", "Power on", 1), 4, []string{"Power on", "power-off-replica"}},
		{"hook step that is none", controllerLine + strings.Replace(hookText, "power-on", "power-up", 1), 4, []string{"power-up", "power-on, "}},
		{"hook step number", controllerLine + strings.Replace(hookText, "\"power-on\"", "13", 1), 4, []string{"step 13", "12 cancel"}},
		{"hook step type", controllerLine + strings.Replace(hookText, "\"power-on\"", "1.5", 1), 4, []string{"names of steps and numbers"}},
		{"hook when", controllerLine + strings.Replace(hookText, "after", "during", 1), 5, []string{"during", "before or after"}},
		{"hook on_error", controllerLine + hookText + "on_error = \"ignore\"\n", 6, []string{"ignore", "halt", "warn"}},
		{"hook of nothing", controllerLine + hookText, 2, []string{"either command"}},
		{"hook of both", controllerLine + hookText + "command = [\"/bin/true\"]\nurl = \"https://h/\"\n", 6, []string{"either command"}},
		{"hook relative", controllerLine + hookText + "command = [\"true\"]\n", 6, []string{"\"true\"", "absolute", "without a shell"}},
		{"hook http", controllerLine + hookText + "url = \"http://h/\"\n", 6, []string{"https, or http to 127.0.0.1"}},
		{"hook login", controllerLine + hookText + "url = \"https://u:hunter2@h/\"\n", 6, []string{"token_file"}},
		{"hook no address", controllerLine + hookText + "url = \"https://\"\n", 6, []string{"no address"}},
		{"hook token without url", controllerLine + hookText + "command = [\"/bin/true\"]\ntoken_file = \"/t\"\n", 7, []string{"token_file", "url"}},
		{"hook timeout", controllerLine + hookText + "timeout = \"2h\"\n", 6, []string{"1s to 1h", "\"1m\""}},
		{"hook pattern", controllerLine + hookText + "vms = [\"[\"]\n", 6, []string{"web-*"}},

		{"replication of half", controllerLine + "[replication]\nhold = [\"/bin/true\"]\n", 2, []string{"release"}},
		{"replication of both", controllerLine + "[replication]\nhold = [\"/bin/true\"]\nrelease = [\"/bin/true\"]\nurl = \"https://h/\"\n", 5, []string{"url, and commands"}},
		{"replication relative", controllerLine + "[replication]\nhold = [\"/bin/true\"]\nrelease = [\"true\"]\n", 4, []string{"absolute"}},

		{"group without members", controllerLine + "[[group]]\nname = \"g\"\n", 2, []string{"no members"}},
		{"group member", controllerLine + "[[group]]\nname = \"g\"\nmembers = [\n{vm = \"a\"},\n{vm = \"b c\"}]\n", 6, []string{"b c", "letters"}},
		{"group unknown key", controllerLine + "[[group]]\nname = \"g\"\nmembers = [{vm = \"a\", oder = 1}]\n", 4, []string{"oder"}},
		{"group twice in it", controllerLine + "[[group]]\nname = \"g\"\n[[group.members]]\nvm = \"a\"\n[[group.members]]\nvm = \"a\"\n", 7, []string{"\"a\" is in it twice"}},
		{"group order", controllerLine + "[[group]]\nname = \"g\"\nmembers = [{vm = \"a\", order = -1}]\n", 4, []string{"order = -1"}},
		{"group priority", controllerLine + "[[group]]\nname = \"g\"\nmembers = [{vm = \"a\", priority = \"top\"}]\n", 4, []string{"top", "low, normal or high"}},
		{"group parallel", controllerLine + "[[group]]\nname = \"g\"\nparallel = 0\nmembers = [{vm = \"a\"}]\n", 4, []string{"group.parallel = 0"}},
	}
}

func TestController(t *testing.T) {
	id := newID(t)
	t.Setenv(credential, "")
	file, dir := write(t, fmt.Sprintf(`
state_dir = "STATE"
[controller]
name = "desk"
vms = 2
disks = 3
[[host]]
name = "home"
url = "https://vc.example.org/sdk"
user = "u"
password_file = "/dev/null"
thumbprint = %q
datacenter = "DC0"
mover = "dr"
export = "home-disks"
registered = true
[[host]]
name = "dr"
kind = "vsphere"
url = "https://192.0.2.1:8989"
user = "root"
password_file = "vcenter"
mover = "gone"
[[hook]]
name = "dns"
steps = ["power-on", 10]
when = "after"
vms = ["web-*"]
command = ["/bin/sh", "-c", "true"]
timeout = "90s"
on_error = "warn"
[replication]
url = "https://backup.example.org/hold"
token_file = "/dev/null"
[[group]]
name = "shop"
parallel = 1
members = [{vm = "db", order = 1, priority = "high"}, {vm = "web", order = 2}]
[[peer]]
name = "dr"
id = %q
`, sum(32), id))
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Controller{Name: "desk", VMs: 2, Disks: 3}); *c.Controller != want {
		t.Errorf("controller %+v, want %+v", *c.Controller, want)
	}
	hosts := []Host{
		{
			Name: "home", Kind: "vsphere", URL: "https://vc.example.org/sdk", User: "u", PasswordFile: "/dev/null",
			Thumbprint: strings.ToUpper(sum(32)), Datacenter: "DC0", Mover: "dr", Export: "home-disks", Registered: true,
		},
		{Name: "dr", Kind: "vsphere", URL: "https://192.0.2.1:8989", User: "root", PasswordFile: "vcenter", Mover: "gone", Export: "dr"},
	}
	if !reflect.DeepEqual(c.Hosts, hosts) {
		t.Errorf("hosts %+v\nwant  %+v", c.Hosts, hosts)
	}
	hooks := []Hook{{
		Name: "dns", Steps: []string{"power-on", "10"}, After: true, VMs: []string{"web-*"}, Warn: true,
		Call: Call{Command: []string{"/bin/sh", "-c", "true"}, Timeout: 90 * time.Second},
	}}
	if !reflect.DeepEqual(c.Hooks, hooks) {
		t.Errorf("hooks %+v\nwant  %+v", c.Hooks, hooks)
	}
	call := Call{URL: "https://backup.example.org/hold", TokenFile: "/dev/null", Timeout: DefaultTimeout}
	if !reflect.DeepEqual(c.Replication, Replication{Hold: call, Release: call}) {
		t.Errorf("replication %+v", c.Replication)
	}
	groups := []Group{{Name: "shop", Parallel: 1, Members: []Member{{VM: "db", Order: 1, Priority: job.High}, {VM: "web", Order: 2}}}}
	if !reflect.DeepEqual(c.Groups, groups) {
		t.Errorf("groups %+v\nwant   %+v", c.Groups, groups)
	}
	all := strings.Join(c.Warnings, "\n")
	for _, w := range []string{`no peer is called "gone"`, `the peer "dr" has no address`, "LoadCredential=vcenter:/PATH", "/dev/null may be read by other users"} {
		if !strings.Contains(all, w) {
			t.Errorf("%q is not in\n%s", w, all)
		}
	}
	if text := c.Summary(); !strings.Contains(text, "controller desk of 2 hosts") {
		t.Errorf("summary %q", text)
	}
	shown(t, file)
	t.Setenv(credential, dir)
	if c, err = Load(file); err != nil || c.Hosts[1].PasswordFile != filepath.Join(dir, "vcenter") {
		t.Errorf("a credential: %v, %v", c.Hosts[1].PasswordFile, err)
	}
}

// shown: what "config show" prints means the same.
func shown(t *testing.T, file string) {
	t.Helper()
	before, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, effective := range []bool{false, true} {
		list, err := Settings(file, effective)
		if err != nil {
			t.Fatal(err)
		}
		text, err := Text(list)
		if err != nil {
			t.Fatal(err)
		}
		again := filepath.Join(t.TempDir(), "shown.toml")
		if err := os.WriteFile(again, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		after, err := Load(again)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		x, y := *before, *after
		x.File, x.Warnings, x.Own, x.Peers = "", nil, nil, nil
		y.File, y.Warnings, y.Own, y.Peers = "", nil, nil, nil
		if effective { // a default that is written down is the default
			x.Limits, x.Jobs, y.Limits, y.Jobs = Limits{}, Jobs{}, Limits{}, Jobs{}
			x.OpenStorage, y.OpenStorage = nil, nil
		}
		if !reflect.DeepEqual(x, y) {
			t.Errorf("effective %v: %+v\nwant %+v\n%s", effective, y, x, text)
		}
	}
}

// TestEmptyController: the table alone makes a controller, also when it is shown.
func TestEmptyController(t *testing.T) {
	file, _ := write(t, "state_dir = \"STATE\"\n[controller]\n")
	c, err := Load(file)
	if err != nil || c.Controller == nil || c.Controller.Name == "" {
		t.Fatalf("%+v, %v", c, err)
	}
	if all := strings.Join(c.Warnings, "\n"); !strings.Contains(all, "no hosts") {
		t.Errorf("no hosts: %s", all)
	}
	list, err := Settings(file, false)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Text(list)
	if err != nil || !strings.Contains(text, "[controller]") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Second: "1s", time.Minute: "1m", time.Hour: "1h", 2 * time.Hour: "2h", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", 70 * time.Minute: "1h10m",
		20 * time.Hour: "20h",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %q, want %q", d, got, want)
		}
	}
}
