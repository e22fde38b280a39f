package daemon

import (
	"fmt"
	"log/slog"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// statusEvery is how often the service manager hears what we do.
const statusEvery = 5 * time.Second

// notifier tells systemd; without systemd every method does nothing.
type notifier struct {
	log  *slog.Logger
	last string
}

func (n *notifier) send(state string) {
	// The environment stays: every message needs it.
	if _, err := sd.SdNotify(false, state); err != nil {
		n.log.Warn("service manager does not listen", "err", err)
	}
}

func (n *notifier) ready() {
	n.send(sd.SdNotifyReady + "\nSTATUS=waiting for sessions")
	n.last = ""
}

func (n *notifier) reloading() {
	n.send(sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec())
}

// stopping asks for the time that a drain may take.
func (n *notifier) stopping() {
	n.send(fmt.Sprintf("%s\nSTATUS=making last checkpoints\nEXTEND_TIMEOUT_USEC=%d", sd.SdNotifyStopping, 2*drainTime.Microseconds()))
}

// every is half the watchdog's time, or statusEvery without a watchdog.
func (n *notifier) every() time.Duration {
	limit, err := sd.SdWatchdogEnabled(false)
	if err != nil || limit <= 0 {
		return statusEvery
	}
	return min(limit/2, statusEvery)
}

func (n *notifier) alive(sessions, jobs, disks, failbacks, halted int) {
	n.send(sd.SdNotifyWatchdog)
	status := fmt.Sprintf("STATUS=%d sessions, %d jobs, %d disks in work", sessions, jobs, disks)
	if failbacks > 0 {
		status += fmt.Sprintf(", %d failbacks", failbacks)
	}
	if halted > 0 {
		status += fmt.Sprintf(" (%d wait for an operator)", halted)
	}
	if status != n.last {
		n.send(status)
		n.last = status
	}
}
