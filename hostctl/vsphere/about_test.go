package vsphere

import (
	"strings"
	"testing"
	"time"
)

// TestAbout: the clock is compared with ours.
func TestAbout(t *testing.T) {
	r := newRig(t, vpx())
	c := r.open()
	const behind = 90 * time.Second
	c.now = func() time.Time { return time.Now().Add(-behind) }
	a, err := c.About(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := a.Ahead - behind; d.Abs() > behind/2 || !strings.Contains(a.Product, "VMware") || a.User == "" {
		t.Errorf("%+v, want a clock %v ahead", a, behind)
	}
}
