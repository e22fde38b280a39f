package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// maxResend is promise 3: one batch and one window, 64 MiB + 32 MiB.
const maxResend = 96 * mib

// The sizes of the disks in blocks of 8 MiB. In the large one more than
// maxResend differs, so that the promise can be broken; it has the limits that
// a daemon has by default. The small one has many checkpoints in a short time.
const (
	smallBlocks = 3
	largeBlocks = 16
	smallLimits = "[limits]\ncheckpoint = \"4MiB\"\nwindow = \"4MiB\"\n"
	largeEvery  = 8 // seeds
)

// Lanes share the kills of one side over one kind of disk: while one waits,
// for a disk or for a second try, others use the time.
const (
	sourceLanes = 2
	targetLanes = 3
)

// seeds are those of every n-th kill from first on.
func seeds(first, n int) (list []uint64) {
	for i := first; i < killsPerKind(); i += n {
		list = append(list, *seedFlag+uint64(i))
	}
	return list
}

// TestKill kills real processes at points drawn from a seed: the source or the
// target, over a file or a block device.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	pairs := []*pair{newPair(t, dir+"/", smallBlocks, 1), nil}
	if err := os.Mkdir(filepath.Join(dir, "large"), 0o700); err != nil {
		t.Fatal(err)
	}
	pairs[1] = newPair(t, filepath.Join(dir, "large"), largeBlocks, 2)
	var all tally
	t.Run("lanes", func(t *testing.T) {
		for i, name := range []string{"source-file", "target-file", "source-loop", "target-loop"} {
			victim, kind, _ := strings.Cut(name, "-")
			n := map[string]int{"source": sourceLanes, "target": targetLanes}[victim]
			for first := range n {
				t.Run(name, func(t *testing.T) {
					if kind == "loop" {
						needRoot(t, "killing over block devices", "losetup")
					}
					t.Parallel()
					run(t, victim, kind, seeds(first, n), uint64(i), pairs, &all)
				})
			}
		}
	})
	all.print(t)
}

// lane kills one kind of process over one kind of disk, again and again.
type lane struct {
	*rig
	victim string // "source" or "target"
	disks  [2]*disk
	usual  map[string]time.Duration // of an undisturbed copy
}

// disk is one target.
type disk struct {
	*pair
	export, path string
	holds        int // index of the image that it holds
}

func newLane(t *testing.T, victim, kind string, pairs []*pair) *lane {
	t.Helper()
	l := &lane{victim: victim, usual: make(map[string]time.Duration)}
	dir, tables := t.TempDir(), []string{}
	for i, p := range pairs {
		d := &disk{pair: p, export: []string{"small", "large"}[i]}
		d.path = filepath.Join(dir, d.export)
		overwrite(t, d.path, p.img[0])
		if kind == "loop" {
			d.path = loopDevice(t, d.path)
		}
		l.disks[i], tables = d, append(tables, target(d.export, d.path))
	}
	l.rig = newRig(t, tables...)
	return l
}

// run makes a lane and kills once for every seed.
func run(t *testing.T, victim, kind string, seeds []uint64, stream uint64, pairs []*pair, all *tally) {
	if len(seeds) == 0 {
		return
	}
	l := newLane(t, victim, kind, pairs)
	for _, seed := range seeds {
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, stream))
			for try := 0; ; try++ { // until the point was not after the end
				c := l.draw(rng, seed)
				c.usual = l.undisturbed(t, c)
				c.from = 1 - c.holds
				if hit := l.kill(t, c, all); hit {
					return
				}
				if try == 9 {
					t.Fatalf("no kill in %d copies came before their end; the last was %+v", try+1, c)
				}
			}
		})
		if !ok {
			t.Fatalf("again: go test -v ./cmd/internal/e2e -run TestKill/lanes/%s-%s -seed %d -kills 1", victim, kind, seed)
		}
	}
}

// plan is one kill.
type plan struct {
	*disk
	from   int           // index of the image to copy
	usual  time.Duration // of such a copy, undisturbed
	args   []string
	limits string
	named  bool    // the command names its run
	bytes  bool    // the point is in bytes sent, else in time
	point  float64 // share of an undisturbed copy
}

// draw makes a plan. Most runs of the small disk are at full speed, some at a
// rate that spreads them.
func (l *lane) draw(rng *rand.Rand, seed uint64) plan {
	c := plan{disk: l.disks[0], limits: smallLimits, args: []string{"--retry", "40s"}}
	if seed%largeEvery == 0 {
		c.disk, c.limits = l.disks[1], ""
	} else if rng.IntN(4) == 0 {
		c.args = append(c.args, "--rate", "40MiB")
	}
	if rng.IntN(4) == 0 {
		c.args = append(c.args, "--transport", "tls")
		c.named = rng.IntN(2) == 0
	} else {
		c.named = true
	}
	if l.victim == "source" { // how much it saved in pieces dies with it
		c.args = append(c.args, "--refine", "off")
	}
	c.bytes, c.point = rng.IntN(2) == 0, rng.Float64()
	return c
}

// kill is one copy that is killed and brought to its end. It reports whether
// the copy was not over already.
func (l *lane) kill(t *testing.T, c plan, all *tally) (hit bool) {
	run := ""
	if c.named {
		run = uuid.NewString()
		c.args = append(c.args, "--run", run)
	}
	d := l.rig.daemon(t, anyPort, c.limits)
	p := l.copy(t, c.img[c.from], d.uri(c.export), c.args...)
	awaitPoint(t, p, c)
	sent := last(t, p.Stdout(), "status").bytes("sent")
	hit = !ended(p)
	var resent int64
	if l.victim == "source" {
		resent = l.killSource(t, c, d, p, run)
	} else {
		resent = l.killTarget(t, c, d, p)
	}
	if resent > maxResend || resent < 0 {
		t.Errorf("%d bytes were sent twice, 0 to %d may be", resent, maxResend)
	}
	if hit {
		all.add(l.victim, c.disk, sent, resent)
	}
	return hit
}

// undisturbed is how long such a copy takes. The first to ask finds out.
func (l *lane) undisturbed(t *testing.T, c plan) time.Duration {
	key := c.export
	if slices.Contains(c.args, "--rate") {
		key += " at a rate"
	}
	if l.usual[key] == 0 {
		c.from = 1 - c.holds
		d := l.rig.daemon(t, anyPort, c.limits)
		began := time.Now()
		sum := l.rerun(t, c, d)
		l.usual[key] = time.Since(began)
		if got := sum.bytes("sent") + sum.bytes("refined"); got != c.differ {
			t.Errorf("undisturbed copy sent, or found on the target in pieces, %d bytes, want %d", got, c.differ)
		}
		l.finished(t, c, d, sum.text("run"))
	}
	return l.usual[key]
}

// awaitPoint returns when p is where it is to be killed, or over.
func awaitPoint(t *testing.T, p *process, c plan) {
	t.Helper()
	began := time.Now()
	cmdtest.Await(t, "the point to kill at", func() bool {
		if c.bytes {
			return ended(p) || last(t, p.Stdout(), "status").bytes("sent") > int64(c.point*float64(c.differ))
		}
		return ended(p) || time.Since(began) >= time.Duration(c.point*float64(c.usual))
	})
}

func ended(p *process) bool { return p.Ended() }

// killSource kills the command line and runs the same one again, against the
// daemon that still has the disk in its hands. It returns the bytes that the
// daemon received more than differed.
func (l *lane) killSource(t *testing.T, c plan, d *daemon, p *process, run string) int64 {
	p.kill()
	if s := last(t, p.Stdout(), "started"); s != nil {
		run = s.text("run")
	}
	verified := strings.Contains(p.Stdout(), `"state":"Verified"`)
	if verified && !equal(t, c.img[c.from], c.path, c.size) {
		t.Errorf("the killed process said Verified of a target that differs:\n%s", p.Stdout())
	}
	l.between(t, c, d.uri(c.export), run)
	sum := l.rerun(t, c, d)
	received := receivedIn(t, l.finished(t, c, d, sum.text("run")))
	if verified || sum.bytes("sent") == 0 { // the daemon may be told of the end only
		return max(received-c.differ, 0)
	}
	return received - c.differ
}

// rerun runs the command until it is let in. Another run than the one that was
// killed is kept out until the daemon has noticed that the first is gone, and
// any run while somebody's probe reads the disk: that of a process that was
// killed does so for 5 s.
func (l *lane) rerun(t *testing.T, c plan, d *daemon) line {
	t.Helper()
	for began := time.Now(); ; {
		p := l.copy(t, c.img[c.from], d.uri(c.export), c.args...)
		if r := p.wait(); r.Code != 11 || time.Since(began) > cmdtest.Deadline/2 {
			if took := time.Since(began); took > 15*time.Second {
				t.Logf("it was let in, and done, after %v", took.Round(time.Millisecond))
			}
			return wantVerified(t, p)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// killTarget kills the daemon and starts it again at the same address, where
// the command line, which lives on, finds it. It returns the bytes that were
// sent more than differed.
func (l *lane) killTarget(t *testing.T, c plan, d *daemon, p *process) int64 {
	d.kill()
	run := last(t, p.Stdout(), "started").text("run")
	l.between(t, c, c.path, run)
	d = l.rig.daemon(t, d.listen, c.limits)
	var sum line
	if r := p.wait(); r.Code == 11 || !strings.Contains(r.Out, `"started"`) {
		sum = l.rerun(t, c, d) // it was killed before the run was let in
	} else {
		sum = wantVerified(t, p)
	}
	l.finished(t, c, d, sum.text("run"))
	return sum.bytes("sent") + sum.bytes("refined") - c.differ
}

// between checks what is said of the target after a kill: Verified only of what
// is equal, and nothing but Inconsistent of what was touched and is not.
func (l *lane) between(t *testing.T, c plan, disk, run string) {
	t.Helper()
	s := l.probe(t, disk)
	state := s.text("state")
	if s == nil || state == "" || state == "Inconsistent" {
		return
	}
	held, img := s.text("run"), c.img[1-c.from]
	if held == run && run != "" {
		img = c.img[c.from]
	}
	if !equal(t, img, c.path, c.size) {
		t.Errorf("probe says %s of run %s, of a target that is not %s", state, held, img)
	}
}

// finished stops the daemon, checks what the copy left behind, and returns the
// daemon's log.
func (l *lane) finished(t *testing.T, c plan, d *daemon, run string) (log string) {
	t.Helper()
	log = d.stop(t)
	if !equal(t, c.img[c.from], c.path, c.size) {
		t.Errorf("Verified, and cmp finds a difference")
	}
	if s := l.probe(t, c.path); s.text("state") != "Verified" || s.text("run") != run {
		t.Errorf("probe at the end: %v, want Verified by %s", s, run)
	}
	c.holds = c.from
	return log
}

// receivedIn sums the bytes of all sessions in a daemon's log.
func receivedIn(t *testing.T, log string) (n int64) {
	t.Helper()
	for _, l := range lines(t, log) {
		n += l.bytes("received")
	}
	return n
}

// tally is what all kills came to.
type tally struct {
	mu     sync.Mutex
	resent map[string][]int64
	phases map[string]int
}

func (a *tally) add(victim string, d *disk, sent, resent int64) {
	phase := "while data flowed"
	switch {
	case sent == 0:
		phase = "before the first byte"
	case sent >= d.differ:
		phase = "after the last byte"
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.resent == nil {
		a.resent, a.phases = make(map[string][]int64), make(map[string]int)
	}
	key := victim + ", " + d.export + " disk"
	a.resent[key] = append(a.resent[key], resent)
	a.phases[victim+", "+phase]++
}

func (a *tally) print(t *testing.T) {
	for key, list := range a.resent {
		slices.Sort(list)
		mb := func(n int64) string { return strconv.FormatFloat(float64(n)/mib, 'f', 1, 64) + " MiB" }
		t.Logf("figure: kill -9 of the %s: %d times, sent again p50 %s, max %s", key, len(list), mb(list[len(list)/2]), mb(list[len(list)-1]))
	}
	t.Logf("figure: kills by phase: %v", a.phases)
}
