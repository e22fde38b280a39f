package hooks

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
)

// event is what a hook gets, as JSON and as variables. Fields may be added; those
// that are there keep their names and meaning.
type event struct {
	Schema   int    `json:"schema"`
	Kind     string `json:"kind"` // "hook", "replication"
	Hook     string `json:"hook,omitempty"`
	Action   string `json:"action,omitempty"` // "hold", "release"
	Failback string `json:"failback"`
	Run      string `json:"run,omitempty"`
	VM       string `json:"vm"`
	Step     string `json:"step,omitempty"`
	Number   int    `json:"number,omitempty"`
	When     string `json:"when,omitempty"` // "before", "after"
	State    string `json:"state"`
	Original ref    `json:"original"`
	Replica  ref    `json:"replica"`
	Target   *ref   `json:"target,omitempty"`
	Former   *ref   `json:"former,omitempty"`   // the original before step 8
	Excluded []ref  `json:"excluded,omitempty"` // must not be replicated any more
}

type ref struct {
	Host string `json:"host"`
	ID   string `json:"id"`
	UUID string `json:"uuid"`
	Name string `json:"name"`
}

func refOf(r hostctl.Ref) ref {
	return ref{Host: clean(r.Host), ID: clean(r.ID), UUID: clean(r.UUID), Name: clean(r.Name)}
}

func (e *event) of(h *failback.Hook) {
	e.Failback, e.Run, e.VM, e.Step, e.Number, e.State = h.Failback, h.Run, h.VM, h.Step, h.Number, string(h.State)
	target := refOf(h.Target)
	e.Original, e.Replica, e.Target = refOf(h.Original), refOf(h.Replica), &target
}

func (e *event) ofPair(p *failback.Pair, id string) {
	e.Failback, e.VM, e.State = id, p.Name, string(p.State)
	e.Original, e.Replica = refOf(p.Original), refOf(p.Replica)
	if p.Former != nil {
		former := refOf(*p.Former)
		e.Former = &former
	}
	for _, x := range p.Excluded {
		e.Excluded = append(e.Excluded, refOf(x))
	}
}

// String names the call in errors.
func (e *event) String() string {
	if e.Action != "" {
		return "replication: " + e.Action + " " + e.VM
	}
	return "hook " + e.Hook + " " + e.When + " " + e.Step
}

// key is the same for the same call of the same failback.
func (e *event) key() string {
	return strings.Join([]string{e.Failback, e.Run, e.Step, e.When, e.Hook, e.Action}, "/")
}

// environ is all that a program has.
func (e *event) environ() []string {
	env := append(Environ(), "HAULBACK_FAILBACK="+clean(e.Failback), "HAULBACK_VM="+clean(e.VM), "HAULBACK_STATE="+e.State)
	if e.Action != "" {
		env = append(env, "HAULBACK_ACTION="+e.Action)
	} else {
		env = append(
			env, "HAULBACK_HOOK="+e.Hook, "HAULBACK_RUN="+clean(e.Run), "HAULBACK_STEP="+clean(e.Step),
			"HAULBACK_NUMBER="+strconv.Itoa(e.Number), "HAULBACK_WHEN="+e.When,
		)
	}
	env = e.Original.environ(env, "ORIGINAL")
	env = e.Replica.environ(env, "REPLICA")
	if e.Target != nil {
		env = e.Target.environ(env, "TARGET")
	}
	return env
}

func (r ref) environ(env []string, name string) []string {
	name = "HAULBACK_" + name
	return append(env, name+"_HOST="+r.Host, name+"_ID="+r.ID, name+"_UUID="+r.UUID, name+"_NAME="+r.Name)
}

// clean is text without what a host, a program or a server may have put in to
// deceive a terminal or a log: control characters, line ends, other directions
// of writing.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError || !unicode.IsPrint(r) && !unicode.IsSpace(r):
			return '?'
		case unicode.IsSpace(r):
			return ' '
		}
		return r
	}, text)
}
