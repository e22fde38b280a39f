package hosts

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/hooks"
	"github.com/haulback/haulback/hostctl"
)

// programs powers a workload by programs of the site. It is an osd.Power.
//
//	status     says on, off or suspended as the first word of its standard
//	           output, and exits with 0; all else is an error and no state
//	power_on   has asked for it, or done it, when it exits with 0
//	power_off  the same; the guest has HAULBACK_GRACE seconds to go by itself,
//	           0 is at once. Its time counts from then on
type programs struct {
	host string
	*config.Workload
}

// State implements osd.Power.
func (p programs) State(ctx context.Context) (hostctl.Power, error) {
	said, err := p.run(ctx, "status", p.Status, 0)
	if err != nil {
		return hostctl.PowerUnknown, err
	}
	word := ""
	if words := strings.Fields(said); len(words) > 0 {
		word = words[0]
	}
	for _, state := range []hostctl.Power{hostctl.On, hostctl.Off, hostctl.Suspended} {
		if word == state.String() {
			return state, nil
		}
	}
	if len(word) > 40 {
		word = word[:40] + "..."
	}
	return hostctl.PowerUnknown, fmt.Errorf("%s: status: %s says %q; the first word has to be on, off or suspended", p.what(), p.Status[0], word)
}

// Set implements osd.Power. A status that fails this once is no reason to leave a
// workload as it is: the programs may be called twice.
func (p programs) Set(ctx context.Context, _ *hostctl.Op, want hostctl.Power, grace time.Duration) error {
	if is, err := p.State(ctx); err == nil && is == want {
		return nil
	}
	var err error
	switch want {
	case hostctl.On:
		_, err = p.run(ctx, "power_on", p.PowerOn, 0)
	case hostctl.Off:
		_, err = p.run(ctx, "power_off", p.PowerOff, grace, "HAULBACK_GRACE="+strconv.Itoa(int((grace+time.Second-1)/time.Second)))
	default:
		err = fmt.Errorf("%s: nobody makes it %v", p.what(), want)
	}
	return err
}

func (p programs) what() string { return fmt.Sprintf("workload %s of host %s", p.Name, p.host) }

// run runs one of the programs, for its time and beyond it.
func (p programs) run(ctx context.Context, key string, command []string, beyond time.Duration, env ...string) (string, error) {
	prog := hooks.Program{Command: command, Timeout: p.Timeout + beyond, Env: append(env, "HAULBACK_HOST="+p.host, "HAULBACK_WORKLOAD="+p.Name)}
	said, err := prog.Run(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %s: %s: %w", p.what(), key, command[0], err)
	}
	return said, nil
}
