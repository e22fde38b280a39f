// Command haulback copies and compares disks, here and at paired daemons, and
// manages who is paired. See docs/operation.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2) // 2: both count
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go cancelOnSignal(signals, cancel)
	// A reader that has gone is an error of the write, which copies pass over, and
	// no end in the middle of one. Not Ignore: children would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	var g global
	vddk.Register(osd.Scheme, g.volumes.driver(&g))
	err := command(&g).ExecuteContext(ctx)
	g.volumes.close()
	code := exitcode.Of(err)
	switch {
	case err == nil:
	case g.json || wantsJSON(os.Args[1:]): // a bad flag before it ends the parsing
		report.WriteExitError(os.Stderr, err, int(code))
	default:
		fmt.Fprintln(os.Stderr, "haulback: "+errorText(err))
	}
	os.Exit(int(code))
}

// wantsJSON looks for --json among arguments that may not be parsed to the end.
func wantsJSON(args []string) bool {
	for _, a := range args {
		switch a {
		case "--":
			return false
		case "--json", "--json=true", "--json=1", "--json=t":
			return true
		}
	}
	return false
}

// printable keeps what a file holds from speaking to the terminal.
func printable(r rune) rune {
	if r == '\n' || r == '\t' || unicode.IsPrint(r) && r != unicode.ReplacementChar {
		return r
	}
	return '?'
}

// errorText is one line, but for an error whose lines show a place.
func errorText(err error) string {
	if _, ok := errors.AsType[*exitcode.Lines](err); ok {
		return strings.Map(printable, err.Error())
	}
	return report.OneLine(err.Error())
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
		if !wantsJSON(os.Args[1:]) {
			fmt.Fprintln(os.Stderr, "haulback: stopping: a call to a disk has to return first, of a server that hangs within 90s; a second signal ends at once")
		}
	})
	for first := time.Now(); time.Since(first) < sameSignal; { // a process group and its parent send it twice
		<-signals
	}
	os.Exit(int(exitcode.Canceled))
}
