package peers

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/haulback/haulback/bench/result"
)

func TestParseReport(t *testing.T) {
	const began, end = `"time":"2026-11-23T04:00:00Z"`, `"time":"2026-11-23T04:00:10Z"`
	at := func(second string) string { return `"time":"2026-11-23T04:00:0` + second + `Z"` }
	status := func(second, sent string) string {
		return `{"message_type":"status",` + at(second) + `,"sent":` + sent + `}` + "\n"
	}
	const summary = `{"message_type":"summary",` + end + `,"state":"Verified","sent":300,"sent_wire":200,"compared":1000,"read_back":300,` +
		`"actual_transport":"tls","transport_reason":"it was faster","packets_lost":2,"phases":[{"name":"pass","duration_ms":1500},{"name":"more","duration_ms":500}]}` + "\n"
	started := `{"message_type":"started",` + began + "}\n"
	for _, c := range []struct {
		name, text string
		tail       float64 // -1: not told
		err        string
	}{
		{"all was sent before the end", started + status("1", "0") + status("4", "300") + status("7", "300") + summary, 6, ""},
		{"it was sent until the end", started + status("1", "0") + status("7", "299") + summary, 3, ""},
		{"nothing was sent", started + status("1", "300") + status("2", "300") + summary, 9, ""},
		{"over at once", started + summary, -1, ""},
		{"not verified", started + strings.Replace(summary, `"Verified"`, `"Inconsistent"`, 1), 0, "Inconsistent"},
		{"sampled is verified", started + strings.Replace(summary, `"Verified"`, `"Verified (sampled 1 of 2)"`, 1), -1, ""},
		{"no summary", started + status("1", "0"), 0, "without Verified"},
		{"it failed", started + `{"message_type":"exit_error","code":13,"text":"no answer"}` + "\n", 0, "no answer"},
		{"nonsense", "hello\n", 0, "hello"},
		{"nothing", "", 0, "without Verified"},
	} {
		extra, note, err := parseReport(strings.NewReader(c.text))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want an error with %q", c.name, err, c.err)
			}
			continue
		}
		tail, told := extra[result.ExtraTail]
		if err != nil || told != (c.tail >= 0) || told && tail != c.tail {
			t.Errorf("%s: tail %v %t, %v; want %v", c.name, tail, told, err, c.tail)
			continue
		}
		if extra[result.ExtraSent] != 300 || extra[result.ExtraSentWire] != 200 || extra[result.ExtraCompared] != 1000 || extra[result.ExtraReadBack] != 300 ||
			extra[result.ExtraLost] != 2 || extra[result.ExtraCopy] != 2 || note != "tls: it was faster" {
			t.Errorf("%s: %v, %q", c.name, extra, note)
		}
	}
}

func TestSelect(t *testing.T) {
	for _, c := range []struct {
		names []string
		has   []string
		lacks []string
		err   string
	}{
		{nil, []string{"b3sum", "haulback/quic", "rsync/delta", "bdsync/sha256", "qemu-img"}, []string{"haulback/quic-raw"}, ""},
		{[]string{"rsync"}, []string{"rsync/delta", "rsync/whole"}, []string{"haulback/quic"}, ""},
		{[]string{"haulback", "rsync/delta"}, []string{"haulback/quic", "haulback/tls", "rsync/delta"}, []string{"rsync/whole", "haulback/quic-raw"}, ""},
		{[]string{"haulback/quic-raw"}, []string{"haulback/quic-raw"}, []string{"haulback/quic"}, ""},
		{[]string{"rsync", "bsync"}, nil, nil, `no peer "bsync"; there are`},
	} {
		some, err := Select(All(), c.names)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v", c.names, err)
			}
			continue
		}
		got := ids(some)
		if err != nil || slices.ContainsFunc(c.has, func(s string) bool { return !slices.Contains(got, s) }) ||
			slices.ContainsFunc(c.lacks, func(s string) bool { return slices.Contains(got, s) }) {
			t.Errorf("%q: %q, %v; want %q and not %q", c.names, got, err, c.has, c.lacks)
		}
	}
}

// TestPlans makes the plan of every peer in each of its cases.
func TestPlans(t *testing.T) {
	k := &Kit{dir: t.TempDir(), bin: "/opt/bin"}
	for _, end := range []string{"source", "target"} {
		for _, name := range []string{"identity.key", "peers.toml"} {
			if err := os.MkdirAll(k.site(end), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(k.site(end), name), []byte(end), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	titles := map[string]bool{}
	for _, p := range All() {
		if p.Title == "" || titles[p.Title] {
			t.Errorf("%s: no title of its own: %q", p.ID(), p.Title)
		}
		titles[p.Title] = true
		if len(p.Cases) == 0 {
			t.Errorf("%s runs in no case", p.ID())
		}
		for _, c := range p.Cases {
			j := Job{Case: c, Dir: t.TempDir(), Size: 4 << 20, Disks: []Disk{
				{Source: "/d/source.img", Target: "/d/target.img", Tracked: "/d/tracked.qcow2"},
				{Source: "/d/source2.img", Target: "/d/target2.img"},
			}}
			if c != result.ManyDisks {
				j.Disks = j.Disks[:1]
			}
			plan, err := p.Plan(k, j)
			if err != nil || len(plan.Clients) == 0 {
				t.Errorf("%s in %s: %+v, %v", p.ID(), c, plan, err)
				continue
			}
			for _, s := range plan.Servers {
				if s.TCP == 0 && s.Log == "" && s.Unix == "" {
					t.Errorf("%s in %s: nobody knows when %q is ready", p.ID(), c, s.Args)
				}
				if s.Log != "" && s.Stderr == "" {
					t.Errorf("%s in %s: the log of %q is thrown away", p.ID(), c, s.Args)
				}
			}
			all := strings.Join(plan.Commands(func(e result.End) int { return map[result.End]int{result.Source: 0, result.Target: 1}[e] }, append(k.Dirs(), j.Dir, "RUN")...), "\n")
			if strings.Contains(all, j.Dir) || strings.Contains(all, k.dir) || strings.Contains(all, k.bin) || !p.Reads && !strings.Contains(all, "taskset -c 0 ") || len(plan.Servers) > 0 && !strings.Contains(all, "taskset -c 1 ") {
				t.Errorf("%s in %s: commands\n%s", p.ID(), c, all)
			}
		}
	}
}

func TestMissing(t *testing.T) {
	k := &Kit{help: "Flags:\n      --transport NAME       NAME of the transport: quic (UDP) or tls (TCP)\n", program: []byte("program")}
	auto := "      --transport NAME       NAME of the transport: auto, quic (UDP) or tls (TCP)\n"
	p := Peer{Name: "x", tools: []string{"no-such-tool"}}
	if why := k.missing(&p); !strings.Contains(why, "no-such-tool is not in PATH") {
		t.Errorf("a tool: %q", why)
	}
	p = needs(Peer{Name: "x"}, hasAuto)
	if why := k.missing(&p); why == "" {
		t.Error("a flag that is not there is not missed")
	}
	k.help += auto
	if why := k.missing(&p); why != "" {
		t.Errorf("a flag that is there: %q", why)
	}
	p = Peer{Name: "x", strings: []string{"WORD"}}
	if why := k.missing(&p); !strings.Contains(why, "WORD") {
		t.Errorf("a word: %q", why)
	}
	k.program = []byte("pro WORD gram")
	if why := k.missing(&p); why != "" {
		t.Errorf("a word that is there: %q", why)
	}
}

func TestOpenNames(t *testing.T) {
	if _, err := Open(t.Context(), t.TempDir(), t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "haulback copy --help") {
		t.Errorf("without programs: %v", err)
	}
}
