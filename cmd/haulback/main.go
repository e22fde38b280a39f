// Command haulback copies and compares disks, here and at paired daemons, and
// manages who is paired. See docs/operation.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/wire"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2) // 2: both count
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go cancelOnSignal(signals, cancel)
	var g global
	err := command(&g).ExecuteContext(ctx)
	code := exitcode.Of(err)
	switch {
	case err == nil:
	case g.json || slices.Contains(os.Args[1:], "--json"): // a bad flag before it ends the parsing
		report.WriteExitError(os.Stderr, err, int(code))
	default:
		fmt.Fprintln(os.Stderr, "haulback: "+report.OneLine(err.Error()))
	}
	os.Exit(int(code))
}

// sameSignal is how long a second signal counts as the first: how to go on is
// told meanwhile.
const sameSignal = time.Second

// slowEnd is when somebody who has pressed Ctrl-C begins to wonder.
const slowEnd = 3 * time.Second

// cancelOnSignal stops cleanly at the first signal and at once at the second.
func cancelOnSignal(signals <-chan os.Signal, cancel context.CancelCauseFunc) {
	<-signals
	cancel(wire.Errorf(wire.CodeCanceled, "%w", exitcode.ErrCanceled))
	time.AfterFunc(slowEnd, func() {
		if !slices.Contains(os.Args[1:], "--json") {
			fmt.Fprintln(os.Stderr, "haulback: stopping: a call to a disk has to return first, of a server that hangs within 90s; a second signal ends at once")
		}
	})
	for first := time.Now(); time.Since(first) < sameSignal; { // a process group and its parent send it twice
		<-signals
	}
	os.Exit(int(exitcode.Canceled))
}
