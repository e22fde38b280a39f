package daemon

import (
	"testing"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/hostctl/osd"
)

// TestUnchanged: what a controller's hosts were opened with is not reloaded, and a
// change of it is one that needs a restart.
func TestUnchanged(t *testing.T) {
	with := func(profiles ...osd.Config) *config.Config {
		return &config.Config{
			Controller: &config.Controller{Name: "desk"}, OpenStorage: profiles,
			Hosts: []config.Host{{Name: "k8s", Kind: config.KindOpenStorage, OpenStorage: "px"}},
		}
	}
	px, disks := osd.Config{Name: "px", Restore: osd.RestoreServer}, osd.Config{Name: "disks"}
	other, tuned := px, disks
	other.Restore, tuned.Driver = osd.RestoreMover, "pxd"
	for name, c := range map[string]struct {
		a, b *config.Config
		want bool
	}{
		"the same":               {with(px, disks), with(disks, px), true},
		"of a host":              {with(px, disks), with(other, disks), false},
		"of disks alone":         {with(px, disks), with(px, tuned), true},
		"no controller, profile": {&config.Config{OpenStorage: []osd.Config{px}}, &config.Config{}, true},
	} {
		if got := unchanged(c.a, c.b); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
