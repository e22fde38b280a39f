package config

import (
	"encoding/pem"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/osd"
)

const (
	profileText = "[[openstorage]]\nname = \"px\"\nendpoint = \"unix:///run/osd.sock\"\nauth = \"none\"\n"
	clusterText = profileText + controllerLine + "[[host]]\nname = \"k8s\"\nkind = \"openstorage\"\nopenstorage = \"px\"\n"
	nobodyText  = "[[host.workload]]\nname = \"shop\"\nvolumes = [\"a\", \"b\"]\ncompute = \"none\"\n"
	execText    = "[[host.workload]]\nname = \"shop\"\nvolumes = [\"a\"]\ncompute = \"exec\"\npower_on = [\"/bin/true\"]\npower_off = [\"/bin/true\"]\nstatus = [\"/bin/echo\", \"off\"]\n"
)

func openstorageMistakes() []mistake {
	without := func(text, line string) string { return strings.Replace(text, line, "", 1) }
	return []mistake{
		{"unknown key", profileText + "insecure = true\n", 5, []string{"insecure"}},
		{"no name", without(profileText, "name = \"px\"\n"), 1, []string{"openstorage name"}},
		{"twice", profileText + profileText, 6, []string{"openstorage \"px\"", "twice", ":3"}},
		{"no endpoint", without(profileText, "endpoint = \"unix:///run/osd.sock\"\n"), 1, []string{"openstorage \"px\"", "endpoint"}},
		{"timeout", profileText + "timeout = \"30\"\n", 5, []string{"openstorage.timeout", "1s to 1h"}},
		{"long timeout", profileText + "long_timeout = \"48h\"\n", 5, []string{"1s to 24h"}},
		{"relative token", profileText + "token_file = \"a/b\"\n", 5, []string{"token_file", "absolute", "LoadCredential"}},

		{"export of no profile", "[[export]]\nname = \"x\"\nuri = \"osd://px/v\"\nrole = \"source\"\n", 3, []string{"export \"x\"", "[[openstorage]]", "\"px\""}},
		{"export of another profile", profileText + "[[export]]\nname = \"x\"\nuri = \"osd://py/v\"\nrole = \"source\"\n", 7, []string{"\"py\""}},
		{"export without a volume", profileText + "[[export]]\nname = \"x\"\nuri = \"osd://px\"\nrole = \"source\"\n", 7, []string{"osd://PROFILE/VOLUME"}},
		{"a snapshot as target", profileText + "[[export]]\nname = \"x\"\nuri = \"osd://px/v?snapshot=s\"\nrole = \"target\"\n", 7, []string{"never written"}},
		{"tracking", profileText + "[[export]]\nname = \"x\"\nuri = \"osd://px/v\"\nrole = \"source\"\ncbt = \"bitmap:b\"\n", 9, []string{"no changed blocks"}},
		{"host export of no profile", "[[export]]\nname = \"x\"\nrole = \"host\"\nopenstorage = \"px\"\n", 4, []string{"\"px\""}},
		{"host export of two kinds", profileText + "[[export]]\nname = \"x\"\nrole = \"host\"\nopenstorage = \"px\"\ndatastores = { a = \"/\" }\n", 8, []string{"not both"}},
		{"openstorage of a disk", profileText + "[[export]]\nname = \"x\"\nuri = \"/dev/null\"\nrole = \"source\"\nopenstorage = \"px\"\n", 9, []string{"role", "osd://px/VOLUME"}},

		{"host without a profile", controllerLine + "[[host]]\nname = \"k\"\nkind = \"openstorage\"\n" + nobodyText, 2, []string{"openstorage is missing"}},
		{"host of another profile", strings.Replace(clusterText, "openstorage = \"px\"\n", "openstorage = \"py\"\n", 1) + nobodyText, 9, []string{"host \"k8s\"", "\"py\""}},
		{"host without workloads", clusterText, 6, []string{"no workloads", "[[host.workload]]"}},
		{"host with url", clusterText + "url = \"https://h\"\n" + nobodyText, 10, []string{"url is of kind \"vsphere\""}},
		{"host with user", clusterText + "user = \"u\"\n" + nobodyText, 10, []string{"user is of kind"}},
		{"host with a password", clusterText + "password_file = \"/x\"\n" + nobodyText, 10, []string{"password_file is of kind"}},
		{"host with a thumbprint", clusterText + "thumbprint = \"aa\"\n" + nobodyText, 10, []string{"thumbprint is of kind"}},
		{"host registered", clusterText + "registered = true\n" + nobodyText, 10, []string{"registered is of kind"}},
		{"vsphere with workloads", controllerLine + hostText + nobodyText, 7, []string{"workload goes with kind = \"openstorage\""}},
		{"vsphere with a profile", profileText + controllerLine + hostText + "openstorage = \"px\"\n", 11, []string{"openstorage goes with kind"}},

		{"workload unknown key", clusterText + nobodyText + "volume = \"a\"\n", 14, []string{"volume"}},
		{"workload name", clusterText + strings.Replace(nobodyText, "shop", "a/b", 1), 11, []string{"workload name \"a/b\""}},
		{"workload twice", clusterText + nobodyText + strings.Replace(nobodyText, "\"a\", \"b\"", "\"c\"", 1), 15, []string{"workload \"shop\"", "twice", ":12"}},
		{"no volumes", clusterText + strings.Replace(nobodyText, "\"a\", \"b\"", "", 1), 12, []string{"0 volumes", "1 to 256"}},
		{"volume name", clusterText + strings.Replace(nobodyText, "\"b\"", "\"b/c\"", 1), 12, []string{"b/c", "by its id"}},
		{"a volume twice", clusterText + strings.Replace(nobodyText, "\"b\"", "\"a\"", 1), 12, []string{"volume \"a\"", "one owner"}},
		{"a volume in two", clusterText + nobodyText + strings.Replace(nobodyText, "shop", "blog", 1), 16, []string{"volume \"a\"", "k8s/shop and k8s/blog"}},
		{"labels", clusterText + nobodyText + "labels = [\"scsi0:0\"]\n", 14, []string{"1 labels for 2 volumes"}},
		{"label twice", clusterText + nobodyText + "labels = [\"x\", \"x\"]\n", 14, []string{"label \"x\"", "each once"}},
		{"label", clusterText + nobodyText + "labels = [\"x\", \"y z\"]\n", 14, []string{"label \"y z\""}},

		{"no compute", clusterText + without(nobodyText, "compute = \"none\"\n"), 10, []string{"compute is missing", "exec"}},
		{"compute of nobody", clusterText + strings.Replace(nobodyText, "none", "home", 1) + "vm = \"x\"\n", 13, []string{"compute \"home\"", "[[host]]"}},
		{"compute of a cluster", clusterText + strings.Replace(nobodyText, "none", "k8s", 1) + "vm = \"x\"\n", 13, []string{"\"k8s\"", "kind \"openstorage\""}},
		{"compute without vm", clusterText + strings.Replace(nobodyText, "none", "home", 1) + hostText, 10, []string{"vm is missing"}},
		{"vm of nobody", clusterText + nobodyText + "vm = \"x\"\n", 14, []string{"vm goes with compute"}},
		{"programs of nobody", clusterText + nobodyText + "status = [\"/bin/true\"]\n", 14, []string{"status goes with compute = \"exec\""}},
		{"timeout of nobody", clusterText + nobodyText + "timeout = \"1m\"\n", 14, []string{"timeout goes with"}},
		{"exec without status", clusterText + without(execText, "status = [\"/bin/echo\", \"off\"]\n"), 10, []string{"status is missing", "power_off, power_on and status"}},
		{"exec without power_on", clusterText + without(execText, "power_on = [\"/bin/true\"]\n"), 10, []string{"power_on is missing"}},
		{"exec relative", clusterText + strings.Replace(execText, "/bin/echo", "echo", 1), 16, []string{"\"echo\"", "absolute", "without a shell"}},
		{"exec timeout", clusterText + execText + "timeout = \"2h\"\n", 17, []string{"1s to 1h"}},
	}
}

func TestOpenStorage(t *testing.T) {
	text := `state_dir = "STATE"
[[openstorage]]
name = "px"
endpoint = "127.0.0.1:9100"
ca_file = "CA"
server_name = "px.example.org"
token_file = "TOKEN"
driver = "pxd"
node = "node-1"
devices = ["/dev/pxd/*"]
dev_root = "/host"
timeout = "20s"
long_timeout = "1h"
restore = "server"
[[export]]
name = "vol"
uri = "osd://px/web-root"
role = "source"
[[export]]
name = "k8s"
role = "host"
openstorage = "px"
[controller]
name = "desk"
vms = 4
disks = 8
[[host]]
name = "k8s"
kind = "openstorage"
openstorage = "px"
[[host.workload]]
name = "shop"
volumes = ["a", "b"]
labels = ["scsi0:0", "scsi0:1"]
compute = "exec"
power_on = ["/bin/sh", "on"]
power_off = ["/bin/sh", "off"]
status = ["/bin/sh", "status"]
[[host.workload]]
name = "db"
volumes = ["c"]
compute = "home"
vm = "db-1"
[[host.workload]]
name = "blog"
volumes = ["d"]
compute = "none"
[[host]]
name = "home"
url = "https://vc.example.org"
user = "u"
password_file = "/dev/null"
`
	token, _ := write(t, "secret")
	s := httptest.NewTLSServer(nil)
	s.Close()
	ca, _ := write(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	file, _ := write(t, strings.NewReplacer("TOKEN", token, "\"CA\"", strconv.Quote(ca)).Replace(text))
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	profiles := []osd.Config{{
		Name: "px", Endpoint: "127.0.0.1:9100", CAFile: ca, ServerName: "px.example.org", TokenFile: token, Driver: "pxd", Node: "node-1",
		Devices: []string{"/dev/pxd/*"}, DevRoot: "/host", Timeout: 20 * time.Second, Long: time.Hour, Restore: osd.RestoreServer,
	}}
	if !reflect.DeepEqual(c.OpenStorage, profiles) {
		t.Errorf("profiles %+v\nwant     %+v", c.OpenStorage, profiles)
	}
	if again, err := Profiles(file); err != nil || !reflect.DeepEqual(again, profiles) {
		t.Errorf("Profiles: %+v, %v", again, err)
	}
	if c.Exports[0].URI != "osd://px/web-root" || c.Exports[1].Host.OpenStorage != "px" {
		t.Errorf("exports %+v", c.Exports)
	}
	host := Host{Name: "k8s", Kind: KindOpenStorage, OpenStorage: "px", Mover: Self, Export: "k8s", Workloads: []Workload{
		{
			Name: "shop", Volumes: []WorkloadVolume{{"a", "scsi0:0"}, {"b", "scsi0:1"}}, Compute: ComputeExec,
			PowerOn: []string{"/bin/sh", "on"}, PowerOff: []string{"/bin/sh", "off"}, Status: []string{"/bin/sh", "status"}, Timeout: DefaultPowerTimeout,
		},
		{Name: "db", Volumes: []WorkloadVolume{{"c", "osd0:0"}}, Compute: "home", VM: "db-1"},
		{Name: "blog", Volumes: []WorkloadVolume{{"d", "osd0:0"}}, Compute: ComputeNone},
	}}
	if !reflect.DeepEqual(c.Hosts[0], host) {
		t.Errorf("host %+v\nwant %+v", c.Hosts[0], host)
	}
	shown(t, file)
	// What else is wrong with a configuration keeps no profile from being used.
	other, _ := write(t, "listen = \"nowhere\"\n"+profileText)
	if p, err := Profiles(other); err != nil || len(p) != 1 || p[0].Name != "px" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := Profiles(token); err == nil {
		t.Errorf("of what is no TOML: %+v", p)
	}
}
