package vix_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/vddk/vix/vixtest"
)

// TestDetectors breaks every rule that the test library watches: a detector that
// does not fire proves nothing about the binding.
func TestDetectors(t *testing.T) {
	program := kit.CC(t, "misuse", "misuse.c", "-ldl", "-lpthread")
	for _, c := range []struct {
		rule    string
		version int
		want    string // in the output; "" is no complaint, "signal" a crash
	}{
		{"none", 80, ""},
		{"none", 67, ""},
		{"null logger", 80, "NULL logger"},
		{"init twice", 80, "InitEx: 3"},
		{"init elsewhere", 80, "InitEx not from the main thread"},
		{"own params", 80, "not from AllocateConnectParams"},
		{"null vm", 65, "NULL VM"},
		{"null transports", 65, "NULL transports"},
		{"open elsewhere", 80, "Open from another thread"},
		{"close elsewhere", 80, "Close from another thread"},
		{"query elsewhere", 80, "QueryAllocatedBlocks from another thread"},
		{"query unaligned", 80, "QueryAllocatedBlocks: 3"},
		{"query small chunk", 80, "QueryAllocatedBlocks: 3"},
		{"over the limit", 80, "ReadAsync: 2"},
		{"beyond the end", 80, "ReadAsync: 3"},
		{"unaligned buffer", 80, "unaligned buffer"},
		{"flush without wait", 80, "Flush: with requests under way"},
		{"close without wait", 80, "Close: with requests under way"},
		{"use after close", 80, "not an open handle"},
		{"concurrent use", 80, "handle used concurrently"},
		{"long info", 70, ""},
		{"long info", 67, "signal"},
		{"long info", 65, "signal"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			lib := kit.Library(t, c.version)
			lib.Set("transport=hotadd\nlatency_us=200000")
			lib.Disk("[ds] vm/vm.vmdk", image(t, 8<<20))
			so, _ := filepath.Glob(lib.Dir + "/lib64/libvixDiskLib.so.*")
			cmd := exec.Command(program, so[0], lib.Dir, c.rule)
			cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+lib.Dir+"/lib64")
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			switch {
			case c.want == "" && err != nil:
				t.Errorf("%v\n%s", err, out)
			case c.want == "signal" && (!errors.As(err, &exit) || exit.Exited()):
				t.Errorf("got %v, want a signal\n%s", err, out)
			case c.want != "" && c.want != "signal" && (err == nil || !strings.Contains(string(out), c.want)):
				t.Errorf("got %v and %q, want %q", err, out, c.want)
			}
		})
	}
}

// kit is removed by TestMain.
var kit vixtest.Kit

// image is a sparse file of size bytes.
func image(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	return path
}
