package e2e

import (
	"flag"
	"os"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

var (
	kills    = flag.Int("kills", 0, "how often each side is killed; 0: 100, 10 with -short, 8 with -race")
	seedFlag = flag.Uint64("seed", 1, "seed of the first kill; each next one has the next seed")
	long     = flag.Bool("long", false, "stop a daemon for longer than the stall and idle limits of 30 s")
)

var programs cmdtest.Programs

// lanes is how many tests run at a time. Most of the time each waits: for a
// disk, for a time-out, for a second try.
const lanes = "10"

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", lanes); err != nil { // the command line may say otherwise
		panic(err)
	}
	flag.Parse()
	os.Exit(cmdtest.Main(m, &programs))
}

// killsPerKind is how often a side is killed over each of the two kinds of disk.
func killsPerKind() int {
	n := defaultKills
	switch {
	case *kills > 0:
		n = *kills
	case testing.Short():
		n = min(n, 10)
	}
	return (n + 1) / 2
}
