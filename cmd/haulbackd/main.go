// Command haulbackd is the daemon: it opens the disks that its configuration
// exports to paired peers. See docs/operation.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/daemon"
	"github.com/haulback/haulback/cmd/internal/osdisk"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/vddk"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2) // 2: both count
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go stopOnSignal(signals, cancel)
	err := command().ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "haulbackd: "+strings.TrimRight(err.Error(), "\n"))
	}
	os.Exit(int(exitcode.Of(err)))
}

// stopOnSignal drains at the first signal and gives up at the second.
func stopOnSignal(signals <-chan os.Signal, stop context.CancelFunc) {
	<-signals
	stop()
	<-signals
	fmt.Fprintln(os.Stderr, "haulbackd: second signal, stopping without a drain")
	os.Exit(int(exitcode.Canceled))
}

// reloads turns SIGHUP into values. One waiting reload stands for any number.
func reloads() <-chan struct{} {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	reload := make(chan struct{})
	go func() {
		for range signals {
			reload <- struct{}{}
		}
	}()
	return reload
}

func run(ctx context.Context, file string) error {
	reload := reloads() // before the first use of the file: no SIGHUP is lost, or kills
	cfg, err := load(file)
	if err != nil {
		return err
	}
	log := daemon.Logger(os.Stderr, cfg.Log)
	volumes := osdisk.New(cfg.OpenStorage, config.Ledger(cfg.Site), log)
	vddk.Register(osd.Scheme, volumes.Driver())
	d, err := daemon.Start(ctx, cfg, volumes, log)
	if err != nil {
		return err
	}
	return d.Run(ctx, reload)
}
