package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

// TestCopyVMDK: into a VMDK that is made, as a judge qemu-img; and out of an
// export of a daemon that is one.
func TestCopyVMDK(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	s, home := cmdtest.NewSite(t, &programs, "desk"), cmdtest.NewSite(t, &programs, "home")
	s.Pair(home)
	a, path := s.Disk("a", 3*mib+4096, 1), filepath.Join(s.Dir, "vm.vmdk")
	s.OK("copy", a, "vmdk://"+path, "--create")
	s.OK("copy", s.Disk("a", 3*mib+4096, 7), "vmdk://"+path, "--verify=full")
	if out, err := exec.Command("qemu-img", "compare", "-f", "raw", "-F", "vmdk", a, path).CombinedOutput(); err != nil {
		t.Errorf("qemu-img compare: %v: %s", err, out)
	}
	var p probed
	if err := json.Unmarshal([]byte(s.OK("probe", "--json", "vmdk://"+path).Out), &p); err != nil {
		t.Fatal(err)
	}
	if p.Kind != "vmdk" || p.State != "Verified" || !strings.Contains(p.Detail, "type monolithicFlat, 1 extent") {
		t.Errorf("probe: %+v", p)
	}
	d := home.Daemon(cmdtest.Export("vm", "vmdk://"+path, "source", s))
	s.OK("copy", d.URI("vm"), s.Dir+"/back", "--create")
	cmdtest.MustEqual(t, a, s.Dir+"/back")
	if r := s.OK("copy", path, s.Dir+"/text", "--create"); !strings.Contains(r.Out+r.Stderr, "WARNING: "+path+": the file looks like the descriptor of a VMDK") {
		t.Errorf("a descriptor as a raw image: no warning:\n%s%s", r.Out, r.Stderr)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "vm.vmx.lck"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.Run("copy", a, "vmdk://"+path); r.Code != 11 || !strings.Contains(r.Stderr, "power the VM off") {
		t.Errorf("a running VM: exit code %d, %s", r.Code, r.Stderr)
	}
	if r := s.Run("probe", "vmdk://"+a); r.Code != 10 || !strings.Contains(r.Stderr, "no descriptor") {
		t.Errorf("no VMDK: exit code %d, %s", r.Code, r.Stderr)
	}
}
