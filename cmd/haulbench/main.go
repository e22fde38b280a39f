// Command haulbench runs haulback and other programs that copy disks on the same
// work, one after the other, and compares what they took (package bench/run).
// It is for a machine with nothing else to do, and as root.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "haulbench: "+strings.TrimRight(err.Error(), "\n"))
	}
	os.Exit(int(exitcode.Of(err)))
}
