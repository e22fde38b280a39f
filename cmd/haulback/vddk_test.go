package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/vddk/vix/vixtest"
)

// TestCopyToVDDK copies to a disk behind VMware's library (the test library),
// whose worker is killed in the midst of it: the copy goes on by itself.
func TestCopyToVDDK(t *testing.T) {
	kit := &vixtest.Kit{}
	t.Cleanup(kit.Remove)
	t.Setenv("PATH", filepath.Dir(kit.Worker(t, false))+":"+os.Getenv("PATH"))
	lib := kit.Library(t, 80)
	s := cmdtest.NewSite(t, &programs, "desk")
	source, target := s.Disk("source", 64*mib, 1), s.Disk("target", 64*mib, 2)
	lib.Disk("[ds] vm/vm.vmdk", target)
	lib.Fault("WriteAsync 20 once:kill")
	lib.Record()
	password := s.Dir + "/password"
	if err := os.WriteFile(password, []byte("secret-of-the-test"), 0o600); err != nil {
		t.Fatal(err)
	}
	uri := "vddk://vc.example/vm-42?disk=[ds] vm/vm.vmdk&user=root&password-file=" + password +
		"&thumbprint=" + vixtest.Thumbprint + "&libdir=" + lib.Dir + "&state=" + t.TempDir()
	r := s.OK("copy", source, uri)
	cmdtest.MustEqual(t, source, target)
	if strings.Contains(r.Out+r.Stderr, "no snapshot") {
		t.Errorf("a warning about reading, of a target:\n%s", r.Stderr)
	}
	if all := r.Out + r.Stderr; strings.Contains(all, "peer") || !strings.Contains(all, "target disk: ") {
		t.Errorf("a peer in one process:\n%s", all)
	}
	starts, kills := 0, 0
	for _, c := range lib.Calls() {
		switch {
		case c.Function == "InitEx":
			starts++
		case c.Function == "FAULT":
			kills++
		}
	}
	if starts < 2 || kills != 1 || !strings.Contains(r.Out, "Verified:") || !strings.Contains(r.Out, "resumed    1 times") {
		t.Errorf("%d workers, %d killed:\n%s", starts, kills, r.Out)
	}
	if left := lib.Disabled(); len(left) != 0 {
		t.Errorf("the VM is still guarded: %q", left)
	}
	config := s.Configure(cmdtest.Export("v", uri, "target", s))
	if r := s.Run("selfcheck", "--config", config); !strings.Contains(r.Out, "OK    vddk "+lib.Dir+": haulback-vddk ") || !strings.Contains(r.Out, ", VDDK 8, transports ") {
		t.Errorf("selfcheck says nothing of the library:\n%s%s", r.Out, r.Stderr)
	}
}
