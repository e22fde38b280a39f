package vddk_test

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/haulback/haulback/vddk"
)

// readBytes is what this process had read from devices so far.
func readBytes(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	_, rest, ok := strings.Cut(string(text), "\nread_bytes: ")
	if !ok {
		t.Skip("SKIPPED: this kernel does not count what is read")
	}
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestColdIsCold: what is called a cold read asks the device, each time, also
// when the cache has the bytes. The kernel counts.
func TestColdIsCold(t *testing.T) {
	needRoot(t)
	for _, m := range mounts {
		for name, content := range map[string][]byte{"noise": noise(2 << 20), "text": bytes.Repeat([]byte("compresses well "), 2<<16)} {
			t.Run(m.name+" "+name, func(t *testing.T) {
				d := open(t, newImage(t, mount(t, m.mkfs, m.make, m.options), content), vddk.ReadWrite)
				if d.Coldness() == "cached" {
					t.Fatal("no cold reads here")
				}
				// As O_DIRECT takes it, and as it does not.
				for i, s := range [][2]int{{0, 1 << 20}, {1 << 20, 65536}, {1<<20 + 65536, 65536}, {5, 70_000}, {1<<20 - 4097, 9000}} {
					p := aligned(make([]byte, s[1]))
					if _, err := d.WriteAt(content[:5000], int64(s[0])); err != nil {
						t.Fatal(err)
					}
					copy(content[s[0]:], content[:5000])
					if err := d.Flush(); err != nil {
						t.Fatal(err)
					}
					if _, err := d.ReadAt(p, int64(s[0])); err != nil {
						t.Fatal(err)
					}
					before := readBytes(t)
					if _, err := d.ReadCold(p, int64(s[0])); err != nil || !bytes.Equal(p, content[s[0]:s[0]+s[1]]) {
						t.Errorf("span %d: wrong bytes (%v)", i, err)
					}
					least := int64(s[1])
					if name == "text" && m.name == "btrfs compressed" {
						least = 4096 * 2 // the one of the write, and what was there
					}
					if got := readBytes(t) - before; got < least {
						t.Errorf("span %d, %s: %d bytes came from the device, want %d", i, d.Coldness(), got, least)
					}
				}
			})
		}
	}
}

// TestFileColdness is what the file systems really do.
func TestFileColdness(t *testing.T) {
	needRoot(t)
	for i, want := range []string{"direct", "dropped", "dropped"} {
		m := mounts[i]
		d := open(t, newImage(t, mount(t, m.mkfs, m.make, m.options), noise(10_000)), vddk.ReadOnly)
		if got := d.Coldness(); got != want {
			t.Errorf("%s: %s, want %s", m.name, got, want)
		}
	}
}
