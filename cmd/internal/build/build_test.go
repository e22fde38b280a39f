package build

import (
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"
)

// ordered are versions that the toolchain records and what they are here, oldest
// first.
var ordered = []struct{ recorded, want string }{
	{"v0.0.0-20261123141248-2f4038b2e2d6", "0.0.0~git20261123141248.2f4038b2e2d6"},
	{"v0.0.0-20261123141248-2f4038b2e2d6+dirty", "0.0.0~git20261123141248.2f4038b2e2d6+dirty"},
	{"v0.0.0-20261123141249-0000000000aa", "0.0.0~git20261123141249.0000000000aa"},
	{"v0.1.0-alpha", "0.1.0~alpha"},
	{"v0.1.0-rc.1", "0.1.0~rc.1"},
	{"v0.1.0-rc.1.0.20261124000000-0000000000aa", "0.1.0~rc.1+git20261124000000.0000000000aa"},
	{"v0.1.0-rc.2", "0.1.0~rc.2"},
	{"v0.1.0-rc.10", "0.1.0~rc.10"},
	{"v0.1.0", "0.1.0"},
	{"v0.1.0+dirty", "0.1.0+dirty"},
	{"v0.1.1-0.20261125000000-0000000000aa", "0.1.0+git20261125000000.0000000000aa"},
	{"v0.1.1-0.20261125000000-0000000000aa+dirty", "0.1.0+git20261125000000.0000000000aa+dirty"},
	{"v0.1.1-0.20261126000000-000000000001", "0.1.0+git20261126000000.000000000001"},
	{"v0.1.1-alpha", "0.1.1~alpha"},
	{"v0.1.1", "0.1.1"},
	{"v0.2.0", "0.2.0"},
	{"v0.10.0", "0.10.0"},
	{"v1.0.0-pre-1", "1.0.0~pre.1"},
}

func TestVersion(t *testing.T) {
	for _, c := range ordered {
		if got := Of(&debug.BuildInfo{Main: debug.Module{Version: c.recorded}}).Version; got != c.want {
			t.Errorf("%s is %s, want %s", c.recorded, got, c.want)
		}
	}
	for _, recorded := range []string{"", "(devel)"} {
		if got := number(recorded); got != "devel" {
			t.Errorf("%q is %s", recorded, got)
		}
	}
	other := Of(&debug.BuildInfo{GoVersion: "go1.30", Settings: []debug.BuildSetting{{Key: "GOOS", Value: "linux"}, {Key: "GOARCH", Value: "riscv64"}}})
	if other.Go != "go1.30" || other.Platform != "linux/riscv64" {
		t.Errorf("another program's: %+v", other)
	}
}

// TestOrder: both package managers take each version for newer than the one
// before, so an upgrade is an upgrade.
func TestOrder(t *testing.T) {
	for tool, older := range map[string]func(a, b string) bool{
		"dpkg": func(a, b string) bool {
			return exec.CommandContext(t.Context(), "dpkg", "--compare-versions", a+"-1", "lt", b+"-1").Run() == nil
		},
		"rpm": func(a, b string) bool {
			out, err := exec.CommandContext(t.Context(), "rpm", "--eval", `%{lua: print(rpm.vercmp("`+a+`", "`+b+`"))}`).CombinedOutput()
			return err == nil && strings.TrimSpace(string(out)) == "-1"
		},
	} {
		t.Run(tool, func(t *testing.T) {
			if _, err := exec.LookPath(tool); err != nil {
				t.Skipf("NOT TESTED: how %s sorts versions; deploy/ci/prepare.sh installs it", tool)
			}
			for i, c := range ordered[1:] {
				if !older(ordered[i].want, c.want) {
					t.Errorf("%s does not come before %s", ordered[i].want, c.want)
				}
			}
		})
	}
}
