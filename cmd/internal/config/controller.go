package config

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/strict"
	"github.com/haulback/haulback/hostctl/job"
)

// Controller says how a daemon brings VMs home.
type Controller struct {
	Name       string // in marks on hosts and in messages
	VMs, Disks int    // in passes at once; 0: the failback engine's default
}

// Group is VMs that are brought home together.
type Group struct {
	Name     string
	Members  []Member
	Parallel int // of them in passes at once; 0: as many as the controller allows
}

// Member is a VM of a group.
type Member struct {
	VM       string
	Order    int // it switches when all with a lower one have
	Priority job.Priority
}

const (
	maxVMs   = 1024
	maxOrder = 1000
)

type controllerTOML struct {
	Name  string `toml:"name"`
	VMs   int    `toml:"vms"`
	Disks int    `toml:"disks"`
}

type groupTOML struct {
	Name     string       `toml:"name"`
	Parallel int          `toml:"parallel"`
	Members  []memberTOML `toml:"members"`
}

type memberTOML struct {
	VM       string `toml:"vm"`
	Order    int    `toml:"order"`
	Priority string `toml:"priority"`
}

// controller reads all that a controller has. The peers are those of cfg.
func (c *checker) controller(f *file, cfg *Config) {
	if f.Controller == nil {
		for key, n := range map[string]int{"host": len(f.Host), "hook": len(f.Hook), "group": len(f.Group)} {
			if n > 0 {
				c.wrong(key+"[0]", fmt.Errorf("%s: only a controller has one; add a table [controller], it may be empty", key))
			}
		}
		if f.Replication != nil {
			c.wrong("replication", fmt.Errorf("replication: only a controller has it; add a table [controller], it may be empty"))
		}
		return
	}
	t := f.Controller
	cfg.Controller = &Controller{Name: t.Name, VMs: t.VMs, Disks: t.Disks}
	if t.Name == "" {
		cfg.Controller.Name = hostName()
	} else {
		c.wrong("controller.name", site.CheckName("controller", t.Name))
	}
	c.between("controller.vms", t.VMs, 1, maxVMs, "VMs in passes at once")
	c.between("controller.disks", t.Disks, 1, maxJobDisks, "disks in passes at once")
	cfg.Hosts = c.hosts(f.Host, cfg.Peers)
	cfg.Hooks = c.hooks(f.Hook)
	cfg.Replication = c.replication(f.Replication)
	cfg.Groups = c.groups(f.Group)
	if len(f.Host) == 0 {
		c.warn("controller", "controller: it has no hosts; add a table [[host]] for each vCenter, ESXi or volume cluster")
	}
}

// hostName is a name for a controller that has none.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || site.CheckName("controller", name) != nil {
		return "controller"
	}
	return name
}

// between checks a number that was set.
func (c *checker) between(key string, n, least, most int, what string) {
	if _, set := c.places[key]; set && (n < least || n > most) {
		k := described(strict.Bare(key))
		c.wrong(key, fmt.Errorf("%s = %d: %s; write %s", strict.Bare(key), n, what, k.bounds()))
	}
}

// duration is the time that text says, between least and most, or 0 when there is
// no text.
func (c *checker) duration(key, text string, least, most time.Duration) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		c.wrong(key, fmt.Errorf("%s = %q: a time; write %s", strict.Bare(key), text, described(strict.Bare(key)).advice()))
	}
	return d
}

// short is d as people write it: "1h" for 1h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// names checks the names of an array of tables: each is there, and used once.
func (c *checker) names(what string) func(at, name string) {
	first := map[string]string{}
	return func(at, name string) {
		if err := site.CheckName(what, name); err != nil {
			c.wrong(at+"name", err)
		} else if first[name] != "" {
			c.wrong(at+"name", fmt.Errorf("%s %q: the name is used twice, first in %s; rename one of them", what, name, first[name]))
		} else {
			first[name] = c.places.At(c.path, at+"name")
		}
	}
}

var goodVM = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (c *checker) groups(list []groupTOML) (groups []Group) {
	name := c.names("group")
	for i, t := range list {
		at := fmt.Sprintf("group[%d].", i)
		name(at, t.Name)
		c.between(at+"parallel", t.Parallel, 1, maxVMs, "VMs in passes at once")
		g := Group{Name: t.Name, Parallel: t.Parallel}
		if len(t.Members) == 0 {
			c.wrong(at+"members", fmt.Errorf("group %q: it has no members; write members = [{vm = \"NAME\"}]", t.Name))
		}
		in := map[string]bool{}
		for k, m := range t.Members {
			g.Members = append(g.Members, c.member(fmt.Sprintf("%smembers[%d].", at, k), t.Name, m))
			if in[m.VM] {
				c.wrong(fmt.Sprintf("%smembers[%d].vm", at, k), fmt.Errorf("group %q: the VM %q is in it twice; take one out", t.Name, m.VM))
			}
			in[m.VM] = true
		}
		groups = append(groups, g)
	}
	return groups
}

func (c *checker) member(at, group string, t memberTOML) Member {
	m := Member{VM: t.VM, Order: t.Order}
	if !goodVM.MatchString(t.VM) {
		c.wrong(at+"vm", fmt.Errorf("group %q: vm %q: the name of a VM, 1 to 64 letters, digits, dashes and underscores (haulback failback vm list)", group, t.VM))
	}
	c.between(at+"order", t.Order, 0, maxOrder, fmt.Sprintf("the order of %q in group %q", t.VM, group))
	switch t.Priority {
	case "", "normal":
	case "low":
		m.Priority = job.Low
	case "high":
		m.Priority = job.High
	default:
		c.wrong(at+"priority", fmt.Errorf("group %q: priority %q: write low, normal or high", group, t.Priority))
	}
	return m
}
