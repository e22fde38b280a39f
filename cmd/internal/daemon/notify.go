package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// statusEvery is how often the service manager hears what we do.
const statusEvery = 5 * time.Second

// extendEvery is how often a daemon that drains asks for more time, and extendBy
// how much: what is asked for early is not there when the rest takes long.
const (
	extendEvery = 2 * time.Second
	extendBy    = 3 * extendEvery
)

// notifier tells systemd; without systemd every method does nothing.
type notifier struct {
	log  *slog.Logger
	last string
	done int64 // at the last look
	at   time.Time
}

// activity is what a daemon does.
type activity struct {
	sessions, jobs, disks, failbacks, halted int
	done, left                               int64 // bytes of the disks that are being compared and copied
}

func (n *notifier) send(state string) {
	// The environment stays: every message needs it.
	if _, err := sd.SdNotify(false, state); err != nil {
		n.log.Warn("service manager does not listen", "err", err)
	}
}

func (n *notifier) ready() {
	n.send(sd.SdNotifyReady + "\nSTATUS=waiting for sessions")
	n.last, n.at = "", time.Now()
}

func (n *notifier) reloading() {
	n.send(sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec())
}

// stopping says so when ctx is done, and from then on asks for the time that the
// drain takes, until over is called.
func (n *notifier) stopping(ctx context.Context) (over func()) {
	ended := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
		case <-ended:
			return
		}
		tick := time.NewTicker(extendEvery)
		defer tick.Stop()
		for state := sd.SdNotifyStopping + "\nSTATUS=making last checkpoints\n"; ; state = "" {
			n.send(fmt.Sprintf("%sEXTEND_TIMEOUT_USEC=%d", state, extendBy.Microseconds()))
			select {
			case <-tick.C:
			case <-ended:
				return
			}
		}
	}()
	return func() { close(ended) }
}

// every is half the watchdog's time, or statusEvery without a watchdog.
func (n *notifier) every() time.Duration {
	limit, err := sd.SdWatchdogEnabled(false)
	if err != nil || limit <= 0 {
		return statusEvery
	}
	return min(limit/2, statusEvery)
}

// alive says that the supervision loop has come round, and what it has seen.
func (n *notifier) alive(a activity) {
	n.send(sd.SdNotifyWatchdog)
	if status := "STATUS=" + n.status(a, time.Now()); status != n.last {
		n.send(status)
		n.last = status
	}
}

// status is a in words.
func (n *notifier) status(a activity, now time.Time) string {
	text := fmt.Sprintf("%d sessions, %d jobs, %d disks in work", a.sessions, a.jobs, a.disks)
	// What has ended since the last look is not in done any more: no rate then.
	if since, moved := now.Sub(n.at), a.done-n.done; moved > 0 && since > 0 {
		text += ", " + bytes(float64(moved)/since.Seconds()) + "/s"
	}
	n.done, n.at = a.done, now
	if a.left > 0 {
		text += ", " + bytes(float64(a.left)) + " left"
	}
	if a.failbacks > 0 {
		text += fmt.Sprintf(", %d failbacks", a.failbacks)
	}
	if a.halted > 0 {
		text += fmt.Sprintf(" (%d wait for an operator)", a.halted)
	}
	return text
}

// bytes is n for people.
func bytes(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1024 {
			return fmt.Sprintf("%.3g %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.1f TiB", n)
}
