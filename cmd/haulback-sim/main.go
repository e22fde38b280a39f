// Command haulback-sim serves one simulated vCenter or ESXi whose VMs have disks
// with bytes (package hostctl/simvs), or one node of an OpenStorage cluster (package
// hostctl/osd/osdtest), for demonstrations, tests and trying a failback out without
// either. Never use it for data that somebody needs.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
)

func main() {
	log.SetOutput(io.Discard) // govmomi's simulator tells there of every missing method
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "haulback-sim: "+strings.TrimRight(err.Error(), "\n"))
	}
	os.Exit(int(exitcode.Of(err)))
}
