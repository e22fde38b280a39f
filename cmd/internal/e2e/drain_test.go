package e2e

import (
	"strconv"
	"testing"
	"time"
)

// TestDrainUnderLoad: a daemon that is told to stop in the middle of a copy makes
// a last checkpoint and is gone in time; the copy goes on when it is back and sends
// next to nothing again.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	p := newPair(t, t.TempDir(), largeBlocks, 3)
	path := t.TempDir() + "/target"
	r := newRig(t, target("large", path))
	d := r.daemon(t, anyPort)
	rate := strconv.FormatInt(min(48<<20, p.differ/12), 10) + "B" // 12 s at least
	begin := func() *process {
		overwrite(t, path, p.img[0])
		return r.copy(t, p.img[1], d.uri("large"), "--retry", "60s", "--rate", rate, "--refine", "off")
	}
	c := begin()
	for tries := 1; !amid(t, c, p.differ/3); tries++ {
		if tries == 5 {
			t.Fatal("five copies were over before it was seen that a third of them was sent")
		}
		t.Log("the copy was over before it was seen that a third of it was sent: once more")
		c.wait()
		c = begin()
	}
	began := time.Now()
	d.stop(t)
	took := time.Since(began)
	d = r.daemon(t, d.listen)
	sum := wantVerified(t, c)
	resent := sum.bytes("sent") - p.differ
	t.Logf("drained in %v, %d bytes sent again", took, resent)
	if resent < 0 || resent > maxResend {
		t.Errorf("%d bytes were sent twice, 0 to %d may be", resent, maxResend)
	}
	d.stop(t)
	if !equal(t, p.img[1], path, p.size) {
		t.Error("Verified, and cmp finds a difference")
	}
}

// amid waits until the copy has sent so many bytes, and reports whether it still runs
// then: a machine that is busy with other tests may see it too late.
func amid(t *testing.T, c *process, bytes int64) bool {
	t.Helper()
	for sent := int64(0); sent < bytes; time.Sleep(20 * time.Millisecond) {
		if ended(c) {
			return false
		}
		if s := last(t, c.Stdout(), "status"); s != nil {
			sent = s.bytes("sent")
		}
	}
	return !ended(c)
}
