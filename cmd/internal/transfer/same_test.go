package transfer

import (
	"path/filepath"
	"testing"
)

// TestSameDisk: what is told apart without opening anything.
func TestSameDisk(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone")
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{gone, gone, true},
		{gone, "file://" + gone, false}, // nothing is there; the open will tell
		{dir, "file://" + dir + "/.", true},
		{"vmdk://" + gone, "vmdk://" + gone, true},
		{"vmdk://" + gone, gone, false},
		{"haulback://h:1/x", "haulback://h:1/x", true},
		{"haulback://h:1/x", "haulback://h:1/y", false},
		{"haulback://h:1/x", gone, false},
	} {
		a, err1 := ParseEndpoint(c.a)
		b, err2 := ParseEndpoint(c.b)
		if err1 != nil || err2 != nil {
			t.Errorf("%s, %s: %v, %v", c.a, c.b, err1, err2)
			continue
		}
		if got := sameDisk(a, b); got != c.want {
			t.Errorf("same disk %s and %s: got %v, want %v", c.a, c.b, got, c.want)
		}
	}
}
