package failback

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/haulback/haulback/hostctl"
)

func TestSized(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 4259840: "4.1 MiB", 16 << 20: "16.0 MiB", 3 << 40: "3.0 TiB", math.MaxInt64: "8388608.0 TiB",
	} {
		if got := sized(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// TestFullDatastoreIsNamed: a host that has no room is no host that refuses.
func TestFullDatastoreIsNamed(t *testing.T) {
	reason, text, remedy := explain(fmt.Errorf("make snapshot s of web: %w", hostctl.ErrNoSpace))
	if reason != ReasonNoSpace || text != "make snapshot s of web: no space on the datastore" || !strings.HasPrefix(remedy, "free some") {
		t.Errorf("%s: %s; %s", reason, text, remedy)
	}
}
