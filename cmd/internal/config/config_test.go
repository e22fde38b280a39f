package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/mover/throttle"
	"github.com/haulback/haulback/wire"
)

func newID(t *testing.T) string {
	t.Helper()
	key, err := wire.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.ID().String()
}

// write puts a configuration with a state directory of its own into a file.
func write(t *testing.T, text string) (file, dir string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "d.toml")
	text = strings.ReplaceAll(text, "STATE", filepath.Join(dir, "state"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, dir
}

// fileMistakes are those in what every daemon has.
func fileMistakes(t *testing.T) []mistake {
	t.Helper()
	id := newID(t)
	typo := []byte(id)
	typo[0] = 'A' + (typo[0]-'A'+1)%26
	peer := fmt.Sprintf("[[peer]]\nname = \"dr\"\nid = %q\n", id)
	export := "[[export]]\nname = \"x\"\nuri = \"/dev/null\"\nrole = \"source\"\npeers = [\"dr\"]\n"
	return []mistake{
		{"unknown key", "listen = \"127.0.0.1:0\"\nlisten_port = 3\n", 2, []string{"listen_port", "~~~"}},
		{"unknown key in a table", "[log]\nlevle = \"info\"\n", 2, []string{"log.levle", "~~~"}},
		{"unknown table", "[[exports]]\nname = \"x\"\n", 1, []string{"exports"}},
		{"type", "listen = 7420\n", 1, []string{"listen", "~~~"}},
		{"syntax", "listen = \"127.0.0.1:0\nstate_dir = \"x\"\n", 1, nil},
		{"port", "listen = \"0.0.0.0:74200\"\n", 1, []string{"74200", "65535"}},
		{"no port", "listen = \"0.0.0.0\"\n", 1, []string{"ADDRESS:PORT"}},
		{"transport", "transports = [\"quic\", \"tcp\"]\n", 1, []string{`"tcp"`, "quic or tls"}},
		{"no transport", "transports = []\n", 1, []string{"empty"}},
		{"relative state", "\nstate_dir = \"state\"\n", 2, []string{"state_dir", "absolute"}},
		{"relative key", "\n\nkey_file = \"./k\"\n", 3, []string{"key_file", "absolute"}},
		{"relative socket", "[control]\nsocket = \"c.sock\"\n", 2, []string{"control.socket", "absolute", "none"}},
		{"long socket", "[control]\nsocket = \"/" + strings.Repeat("x", 107) + "\"\n", 2, []string{"108 bytes", "107"}},
		{"group without a socket", "[control]\nsocket = \"none\"\ngroup = \"x\"\n", 3, []string{"control.group"}},
		{"port without certificates", "[control]\nlisten = \"0.0.0.0:1\"\n", 2, []string{"cert is missing"}},
		{"certificate without a port", "[control]\ncert = \"/c\"\n", 2, []string{"control.cert", "listen"}},
		{"callers without a port", "[control]\nadmins = [\"x\"]\n", 2, []string{"listen"}},
		{"unknown key of control", "[control]\nsocked = \"x\"\n", 2, []string{"control.socked"}},
		{"metrics for everybody", "[metrics]\nlisten = \"0.0.0.0:9920\"\n", 2, []string{"names of VMs", "plaintext = true"}},
		{"metrics on every address", "[metrics]\nlisten = \":9920\"\n", 2, []string{"names of VMs"}},
		{"metrics without a port", "[metrics]\nlisten = \"127.0.0.1\"\n", 2, []string{"ADDRESS:PORT"}},
		{"plaintext of nothing", "[metrics]\nplaintext = true\n", 2, []string{"metrics.plaintext", "listen"}},
		{"no disks", "[jobs]\ndisks = 0\n", 2, []string{"jobs.disks", "1 to 1024"}},
		{"keep", "[jobs]\nkeep = \"30d\"\n", 2, []string{"30d", "720h"}},
		{"empty pattern", "[jobs]\nallow = [\"\"]\n", 2, []string{"jobs.allow", "empty"}},
		{"level", "[log]\nlevel = \"loud\"\n", 2, []string{"loud", "debug, info, warn or error"}},
		{"format", "[log]\nformat = \"xml\"\n", 2, []string{"xml"}},
		{"unit", "[limits]\nworkers = 2\nmemory = \"64MB\"\n", 3, []string{"memory", "64MB", "64MiB"}},
		{"no unit", "[limits]\nwindow = \"64\"\n", 2, []string{"window", "unit"}},
		{"too large", "[limits]\nmemory = \"9000000TiB\"\n", 2, []string{"too large"}},
		{"below the least", "[limits]\nmemory = \"1MiB\"\n", 2, []string{"limits.memory", "64MiB"}},
		{"compress", "[limits]\ncompress = \"zstd\"\n", 2, []string{"limits.compress", "zstd", "auto, on or off"}},
		{"workers", "[limits]\nworkers = 999\n", 2, []string{"limits.workers = 999", "1 to 8"}},
		{"cpus", "[limits]\ncpus = -1\n", 2, []string{"limits.cpus = -1", "1 to 1024"}},
		{"rate without a unit", "[limits]\nrate = \"50\"\n", 2, []string{"limits.rate", "unit"}},
		{"rate below a grain", "[limits]\nread_rate = \"1KiB\"\n", 2, []string{"limits.read_rate", "below 64KiB"}},
		{"rate of nothing", "[limits]\nrate = \"0B\"\n", 2, []string{"limits.rate", "leave it out"}},
		{"latency without a unit", "[limits]\nlatency = \"20\"\n", 2, []string{"limits.latency", "20ms"}},
		{"latency type", "[limits]\nlatency = 20\n", 2, []string{"latency"}},
		{"window", "[limits]\nwindows = [\"Mon-Fri 08:00-18:00 10MiB\", \"Mon 8:00-18:00 1MiB\"]\n", 2, []string{"limits.windows", `"8:00"`, `window "Mon 8:00-18:00 1MiB"`}},
		{"window day", "[limits]\nwindows = [\"Mo-Fr 08:00-18:00 10MiB\"]\n", 2, []string{"Mo-Fr", "Mon, Tue"}},
		{"peer without a name", fmt.Sprintf("[[peer]]\nid = %q\n", id), 1, []string{"peer name"}},
		{"peer name", fmt.Sprintf("[[peer]]\nname = \"a b\"\nid = %q\n", id), 2, []string{"a b"}},
		{"peer ID", "[[peer]]\nname = \"a\"\nid = \"" + string(typo) + "\"\n", 3, []string{"group 1 or 2", "haulback peer id"}},
		{"peer address", peer + "address = \"h:0\"\n", 4, []string{"h:0", "1 to 65535"}},
		{"peer twice", peer + "\n" + fmt.Sprintf("[[peer]]\nname = \"dr\"\nid = %q\n", newID(t)), 6, []string{`"dr"`, "twice", ":3"}},
		{"ID twice", peer + "\n" + fmt.Sprintf("[[peer]]\nname = \"dr2\"\nid = %q\n", id), 6, []string{`"dr2"`, `"dr"`, "same ID"}},
		{"export twice", peer + export + export, 10, []string{`"x"`, "twice", ":6"}},
		{"export name", peer + "[[export]]\nname = \"../etc\"\nuri = \"/x\"\nrole = \"source\"\n", 5, []string{"../etc"}},
		{"role missing", peer + "[[export]]\nname = \"x\"\nuri = \"/x\"\n", 4, []string{"role is missing", "source", "target"}},
		{"role", peer + "[[export]]\nname = \"x\"\nuri = \"/x\"\nrole = \"both\"\n", 7, []string{`"both"`}},
		{"uri missing", peer + "[[export]]\nname = \"x\"\nrole = \"source\"\n", 4, []string{"uri is missing"}},
		{"uri", peer + "[[export]]\nname = \"x\"\nuri = \"s3://h/x\"\nrole = \"source\"\n", 6, []string{"s3", "supported"}},
		{"tracking", peer + export + "cbt = \"magic\"\n", 9, []string{`"magic"`, "bitmap:NAME"}},
		{"tracking of a target", peer + "[[export]]\nname = \"x\"\nuri = \"/x\"\nrole = \"target\"\ncbt = \"bitmap:b\"\n", 8, []string{"cbt", `"target"`}},
		{"relative uri", peer + "[[export]]\nname = \"x\"\nuri = \"img\"\nrole = \"source\"\n", 6, []string{"img", "absolute"}},
	}
}

// TestUnknownPeer: a name that is not paired is told and lets nobody in; it is
// no mistake, or a peer could not be removed.
func TestUnknownPeer(t *testing.T) {
	file, dir := write(t, fmt.Sprintf("state_dir = \"STATE\"\n[[peer]]\nname = \"dr\"\nid = %q\n[[export]]\nname = \"x\"\nuri = \"/dev/null\"\n"+
		"role = \"source\"\npeers = [\"dr\", \"zz\"]\noperators = [\"yy\"]\n", newID(t)))
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(c.Warnings, "\n")
	for _, w := range []string{file + ":9:1: ", `"zz"`, "haulback peer add ID --name zz", file + ":10:1: ", `"yy"`} {
		if !strings.Contains(all, w) {
			t.Errorf("%q is not in\n%s", w, all)
		}
	}
	if e := c.Exports[0]; len(e.Peers) != 1 || len(e.Operators) != 0 {
		t.Errorf("export %+v, want one peer and no operator", e)
	}
	state := filepath.Join(dir, "state")
	if err := os.MkdirAll(filepath.Join(state, "peers.toml"), 0o700); err != nil { // cannot be read, even by root
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), "peers.toml") || strings.Contains(err.Error(), "no peer is called") {
		t.Errorf("unreadable peers: Load: %v", err)
	}
}

// TestStillPeers: who has a table stays, also beside mistakes, also by one with a
// mistake in its ID; who has none does not.
func TestStillPeers(t *testing.T) {
	id := newID(t)
	dr, err := wire.ParseID(id)
	must(t, err)
	lower, other := strings.ToLower(id), newID(t)
	for name, c := range map[string]struct {
		text  string
		stays bool
		fails bool
	}{
		"its table":                 {text: "[[peer]]\nname = \"dr\"\nid = \"" + id + "\"\n", stays: true},
		"another spelling":          {text: "[[peer]]\nname = \"new\"\nid = \"" + lower + "\"\n", stays: true},
		"beside mistakes":           {text: "lisen = 1\n[[peer]]\nname = \"dr\"\nadress = \"x\"\nid = \"" + id + "\"\n[limits]\nmemory = []\n", stays: true},
		"an ID that is none":        {text: "[[peer]]\nname = \"dr\"\nid = \"" + id[1:] + "\"\n", stays: true},
		"nobody's name and ID":      {text: "[[peer]]\nname = 5\nid = 5\n", stays: true},
		"another ID":                {text: "[[peer]]\nname = \"dr\"\nid = \"" + other + "\"\n"},
		"another, with a mistake":   {text: "[[peer]]\nname = \"x\"\nid = \"y\"\n"},
		"nobody":                    {text: "lisen = 1\n"},
		"a file that is no TOML":    {text: "[[peer\n", fails: true},
		"a peer that is no table":   {text: "peer = 5\n", fails: true},
		"peers that are not tables": {text: "peer = [5]\n", fails: true},
	} {
		file, _ := write(t, c.text)
		stays, err := StillPeers(file)
		if (err != nil) != c.fails || err == nil && stays(site.Peer{Name: "dr", ID: dr}) != c.stays {
			t.Errorf("%s: stays %v, %v", name, stays != nil && stays(site.Peer{Name: "dr", ID: dr}), err)
		}
	}
}

// TestLimits: every one that is wrong is told, by its own key.
func TestLimits(t *testing.T) {
	file, _ := write(t, "state_dir = \"STATE\"\n[limits]\nmemory = \"1MiB\"\nworkers = 99\ncheckpoint = \"1KiB\"\nwindow = \"1MiB\"\nsessions = -1\n")
	_, err := Load(file)
	if err == nil {
		t.Fatal("Load took it")
	}
	for i, key := range []string{"memory", "workers", "checkpoint", "window", "sessions"} {
		if want := fmt.Sprintf("%s:%d:1: limits.%s = ", file, i+3, key); !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}

// TestAllMistakes: one run of "config check" shows them all.
func TestAllMistakes(t *testing.T) {
	file, _ := write(t, "listen = \"x\"\nstate_dir = \"rel\"\n[log]\nlevel = \"loud\"\n[[export]]\nname = \"x\"\nuri = \"/x\"\n")
	_, err := Load(file)
	if err == nil {
		t.Fatal("no error")
	}
	for line := range 4 {
		if at := fmt.Sprintf("%s:%d:", file, []int{1, 2, 4, 5}[line]); !strings.Contains(err.Error(), at) {
			t.Errorf("%q is not in\n%v", at, err)
		}
	}
}

func TestLoad(t *testing.T) {
	here, there := newID(t), newID(t)
	file, dir := write(t, fmt.Sprintf(`
listen = "127.0.0.1:7421"
transports = ["tls"]
gro = false
state_dir = "STATE"
[log]
level = "debug"
[limits]
memory = "256MiB"
checkpoint = "16MiB"
rate = "100MiB"
read_rate = "1GiB"
cpus = 3
latency = "20ms"
windows = ["Mon-Fri 08:00-18:00 wire 10MiB read 50MiB", "22:00-06:00 unlimited"]
[[peer]]
name = "dr"
id = %q
address = "Proxy.example"
[[export]]
name = "x"
uri = "file:///nowhere/x.img"
role = "target"
peers = ["dr", "desk"]
operators = ["desk"]
`, here))
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	peers := fmt.Sprintf("[[peer]]\nname = 'desk'\nid = '%s'\n[[peer]]\nname = 'dr'\nid = '%s'\n", there, here)
	if err := os.WriteFile(filepath.Join(dir, "state", "peers.toml"), []byte(peers), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:7421" || c.QUIC || !c.TLS || c.GRO || !c.GSO || c.Log.Level != slog.LevelDebug || c.Limits.Memory != 256<<20 || c.Limits.Checkpoint != 16<<20 || c.Limits.CPUs != 3 {
		t.Errorf("Load: %+v", c)
	}
	l := throttle.Limits{
		Wire: 100 << 20, Read: 1 << 30, Latency: 20 * time.Millisecond,
		Windows: []throttle.Window{{Days: [7]bool{1: true, 2: true, 3: true, 4: true, 5: true}, From: 480, To: 1080, Wire: 10 << 20, Read: 50 << 20}, {From: 1320, To: 360}},
	}
	if !reflect.DeepEqual(c.Throttle, l) {
		t.Errorf("limits %+v, want %+v", c.Throttle, l)
	}
	if len(c.Peers) != 2 || c.Peers[0].Name != "desk" || c.Peers[1].Address != "proxy.example:7420" {
		t.Errorf("peers %v, want desk and dr, once each", c.Peers)
	}
	e := c.Exports[0]
	if e.Role != mover.RoleTarget || len(e.Peers) != 2 || e.Peers[1].String() != there || len(e.Operators) != 1 {
		t.Errorf("export %+v", e)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "/nowhere/x.img is not there yet") {
		t.Errorf("warnings %q, want one about the missing file", c.Warnings)
	}
}

// TestPeersFileMistake names the other file, not the configuration.
func TestPeersFileMistake(t *testing.T) {
	file, dir := write(t, "state_dir = \"STATE\"\n")
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state", "peers.toml")
	if err := os.WriteFile(path, []byte("[[peer]]\nname = 'desk'\nid = 'ABC'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), path+":3:") {
		t.Errorf("Load: %v, want a mistake in %s:3", err, path)
	}
}
