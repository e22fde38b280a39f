package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/hostctl/failback"
)

// Caller calls hooks. Use it after Use; safe for concurrent use.
type Caller struct {
	Log *slog.Logger
	// Note records a call that was made; nil: nobody wants to know.
	Note func(ctx context.Context, c Called)
	now  atomic.Pointer[set]
}

// Called is a call that was made.
type Called struct {
	Hook, Failback, VM, Step string // Hook: its name, or "replication"
	What                     string // program or address
	Took                     time.Duration
	Err                      error
}

type set struct {
	hooks       []config.Hook
	replication config.Replication
}

// Use puts the hooks of a configuration in the place of those before.
func (c *Caller) Use(cfg *config.Config) {
	c.now.Store(&set{hooks: cfg.Hooks, replication: cfg.Replication})
}

func (c *Caller) set() *set {
	if s := c.now.Load(); s != nil {
		return s
	}
	return new(set)
}

// Run implements failback.Hooks.
func (c *Caller) Run(ctx context.Context, h failback.Hook) error {
	for _, hook := range c.set().hooks {
		if hook.After != h.After || !has(&hook, h.Step, h.Number) || !isFor(&hook, h.VM) {
			continue
		}
		e := event{Schema: 1, Kind: "hook", Hook: hook.Name, When: when(h.After)}
		e.of(&h)
		err := c.call(ctx, &hook.Call, &e)
		switch {
		case err == nil:
		case hook.Warn && ctx.Err() == nil:
			c.Log.Warn("a hook did not work, the failback goes on", "vm", h.VM, "step", h.Step, "err", err)
		default:
			return err
		}
	}
	return nil
}

// Named implements failback.Hooks.
func (c *Caller) Named(step string) (list []string) {
	number := failback.StepNumber(step)
	for _, hook := range c.set().hooks {
		if !has(&hook, step, number) {
			continue
		}
		text := when(hook.After) + ": " + hook.Name + " (" + what(&hook.Call) + ")"
		if len(hook.VMs) > 0 {
			text += " for " + strings.Join(hook.VMs, ", ")
		}
		list = append(list, text)
	}
	return list
}

// Hold implements failback.Replication.
func (c *Caller) Hold(ctx context.Context, p *failback.Pair, id string) error {
	return c.replication(ctx, &c.set().replication.Hold, "hold", p, id)
}

// Release implements failback.Replication.
func (c *Caller) Release(ctx context.Context, p *failback.Pair, id string) error {
	return c.replication(ctx, &c.set().replication.Release, "release", p, id)
}

func (c *Caller) replication(ctx context.Context, call *config.Call, action string, p *failback.Pair, id string) error {
	if call.IsZero() {
		return nil
	}
	e := event{Schema: 1, Kind: "replication", Hook: "replication", Action: action}
	e.ofPair(p, id)
	return c.call(ctx, call, &e)
}

// call makes one call within its time.
func (c *Caller) call(ctx context.Context, call *config.Call, e *event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("%s: %w", e, err)
	}
	began := time.Now()
	if call.URL != "" {
		err = (&post{Call: call, key: e.key(), wait: firstWait}).do(ctx, body)
	} else {
		err = run(ctx, call, e.environ(), body, nil)
	}
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", e, what(call), err)
	}
	if c.Note != nil {
		c.Note(ctx, Called{Hook: e.Hook, Failback: e.Failback, VM: e.VM, Step: e.Step, What: what(call), Took: time.Since(began), Err: err})
	}
	return err
}

// has reports whether a hook belongs to a step: by its name, by its name without
// the number of the pass or try ("pass-2", "power-off-replica-2"), or by its number.
func has(h *config.Hook, step string, number int) bool {
	plain := strings.TrimSuffix(strings.TrimRight(step, "0123456789"), "-")
	return slices.Contains(h.Steps, step) || slices.Contains(h.Steps, plain) || number > 0 && slices.Contains(h.Steps, strconv.Itoa(number))
}

func isFor(h *config.Hook, vm string) bool {
	return len(h.VMs) == 0 || slices.ContainsFunc(h.VMs, func(p string) bool {
		ok, _ := filepath.Match(p, vm) // patterns were checked
		return ok
	})
}

func when(after bool) string {
	if after {
		return "after"
	}
	return "before"
}

// what is a call for people, without what may be a secret: arguments, and the
// parameters of an address.
func what(c *config.Call) string {
	if c.URL == "" {
		return c.Command[0]
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return "its url" // was checked
	}
	return "POST " + u.Scheme + "://" + u.Host + u.EscapedPath()
}
