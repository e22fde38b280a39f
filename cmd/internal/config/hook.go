package config

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/haulback/haulback/hostctl/failback"
)

// Hook is what a site wants done around steps of a failback.
type Hook struct {
	Name  string
	Steps []string // names or numbers of steps
	After bool     // after the step; else before
	VMs   []string // patterns of names of VMs; none: all
	Call  Call
	Warn  bool // when it does not work, warn and go on; else halt
}

// Replication is how to stop and start what replicates VMs. The zero
// Replication does nothing.
type Replication struct {
	Hold, Release Call
}

// Call is a program, or an address to POST to.
type Call struct {
	Command   []string // the program by its absolute path, and its arguments
	URL       string
	TokenFile string        // bearer token for URL
	CAFile    string        // of the CAs that count for URL; empty: those of the system
	Timeout   time.Duration // never 0
}

// IsZero reports whether there is nothing to call.
func (c *Call) IsZero() bool { return len(c.Command) == 0 && c.URL == "" }

// DefaultTimeout is what a hook may take when its configuration does not say.
const DefaultTimeout = time.Minute

const (
	leastTimeout = time.Second
	mostTimeout  = time.Hour
	mostLong     = 24 * time.Hour // of a volume cluster that restores
	lastStep     = 12
)

type hookTOML struct {
	Name    string   `toml:"name"`
	Steps   []any    `toml:"steps"`
	When    string   `toml:"when"`
	VMs     []string `toml:"vms"`
	Command []string `toml:"command"`
	URL     string   `toml:"url"`
	Token   string   `toml:"token_file"`
	CA      string   `toml:"ca_file"`
	Timeout string   `toml:"timeout"`
	OnError string   `toml:"on_error"`
}

type replicationTOML struct {
	Hold    []string `toml:"hold"`
	Release []string `toml:"release"`
	URL     string   `toml:"url"`
	Token   string   `toml:"token_file"`
	CA      string   `toml:"ca_file"`
	Timeout string   `toml:"timeout"`
}

func (c *checker) hooks(list []hookTOML) (hooks []Hook) {
	name := c.names("hook")
	for i, t := range list {
		at := fmt.Sprintf("hook[%d].", i)
		name(at, t.Name)
		what := fmt.Sprintf("hook %q", t.Name)
		h := Hook{Name: t.Name, Steps: c.steps(at, what, t.Steps), After: t.When == "after", VMs: t.VMs, Warn: t.OnError == "warn"}
		if t.When != "before" && t.When != "after" {
			c.wrong(at+"when", fmt.Errorf("%s: when = %q; write before or after its steps", what, t.When))
		}
		if t.OnError != "" && t.OnError != "warn" && t.OnError != "halt" {
			c.wrong(at+"on_error", fmt.Errorf("%s: on_error %q; write halt (the failback waits for an operator, the default) or warn", what, t.OnError))
		}
		for _, p := range t.VMs {
			if _, err := filepath.Match(p, ""); err != nil || p == "" {
				c.wrong(at+"vms", fmt.Errorf("%s: vms: pattern %q; write a name, where * is anything, as in \"web-*\"", what, p))
			}
		}
		if (len(t.Command) == 0) == (t.URL == "") {
			c.wrong(at+"command", fmt.Errorf("%s: write either command = [\"/PATH\", \"ARGUMENT\"...] or url = \"https://...\"", what))
		}
		h.Call = c.call(at, what, "command", t.Command, t.URL, t.Token, t.CA, t.Timeout)
		hooks = append(hooks, h)
	}
	return hooks
}

// steps are names or numbers, as strings.
func (c *checker) steps(at, what string, list []any) (steps []string) {
	for _, one := range list {
		switch s := one.(type) {
		case int64:
			if s < 1 || s > lastStep {
				c.wrong(at+"steps", fmt.Errorf("%s: step %d; write 1 to 9 of the failback, 10 commit, 11 undo, 12 cancel", what, s))
			}
			steps = append(steps, strconv.FormatInt(s, 10))
		case string:
			if failback.StepNumber(s) == 0 {
				c.wrong(at+"steps", fmt.Errorf("%s: step %q: there is none of that name; there are the numbers 1 to %d, %s, and those of undo and cancel (docs/failback.md)", what, s, lastStep, strings.Join(failback.StepNames(), ", ")))
			}
			steps = append(steps, s)
		default:
			c.wrong(at+"steps", fmt.Errorf("%s: steps: names of steps and numbers from 1 to %d, as in [\"power-off-replica\", 9]", what, lastStep))
		}
	}
	if len(list) == 0 {
		c.wrong(at+"steps", fmt.Errorf("%s: steps is missing; name those that it belongs to, as in [\"power-off-replica\", 9]", what))
	}
	return steps
}

func (c *checker) replication(t *replicationTOML) (r Replication) {
	if t == nil {
		return r
	}
	const at, what = "replication.", "replication"
	commands := len(t.Hold) + len(t.Release)
	switch {
	case t.URL != "" && commands > 0:
		c.wrong(at+"url", fmt.Errorf("replication: url, and commands; one of them holds it, take the other out"))
	case t.URL == "" && (len(t.Hold) == 0 || len(t.Release) == 0):
		c.wrong("replication", fmt.Errorf("replication: write hold = [\"/PATH\"...] and release = [\"/PATH\"...], or url = \"https://...\""))
	}
	r.Hold = c.call(at, what, "hold", t.Hold, t.URL, t.Token, t.CA, t.Timeout)
	r.Release = r.Hold
	if t.URL == "" {
		r.Release.Command = t.Release
		c.program(at+"release", what, t.Release)
	}
	return r
}

// call reads what hooks and replication have in common; key is that of its
// command.
func (c *checker) call(at, what, key string, command []string, address, token, ca, timeout string) Call {
	out := Call{Command: command, URL: address, CAFile: ca, Timeout: c.duration(at+"timeout", timeout, leastTimeout, mostTimeout)}
	if out.Timeout == 0 {
		out.Timeout = DefaultTimeout
	}
	c.program(at+key, what, command)
	if address == "" {
		for name, path := range map[string]string{"token_file": token, "ca_file": ca} {
			if path != "" {
				c.wrong(at+name, fmt.Errorf("%s: %s belongs to url, which is missing; add it, or take this out", what, name))
			}
		}
		return out
	}
	c.wrong(at+"url", webhook(what, address))
	if ca != "" && !filepath.IsAbs(ca) {
		c.wrong(at+"ca_file", fmt.Errorf("%s: ca_file %q: not an absolute path; write it from / on", what, ca))
	}
	out.TokenFile = c.secret(at+"token_file", what+": token_file", token)
	return out
}

// program checks a command. One that is not there may come.
func (c *checker) program(key, what string, command []string) {
	if len(command) == 0 {
		return
	}
	if !filepath.IsAbs(command[0]) {
		c.wrong(key, fmt.Errorf("%s: %q is no absolute path; write it from / on, programs are run without a shell", what, command[0]))
		return
	}
	info, err := os.Stat(command[0])
	switch {
	case err != nil:
		c.warn(key, "%s: %v", what, err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		c.warn(key, "%s: %s is no program; chmod +x it", what, command[0])
	case info.Mode().Perm()&0o002 != 0:
		c.warn(key, "%s: %s may be changed by every user (mode %04o); chmod o-w %s", what, command[0], info.Mode().Perm(), command[0])
	}
}

// webhook says what is wrong with an address to POST to.
func webhook(what, address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "":
		return fmt.Errorf("%s: url: no address; write https://HOST/PATH", what)
	case u.User != nil:
		return fmt.Errorf("%s: url: a login does not belong there; write token_file", what)
	case u.Fragment != "":
		return fmt.Errorf("%s: url: nothing after # reaches a server; take it out", what)
	case u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%s: url %q; write https, or http to 127.0.0.1 alone", what, address)
}

// loopback reports whether host means this machine, without asking anybody.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
