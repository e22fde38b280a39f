// Command haulback-vddk opens the disks of one VM with VMware's VDDK library and
// serves them over NBD on a unix socket. It is started by haulback and haulbackd,
// never by hand: which VM, and as whom, is told on its standard input (package
// vddk/worker/control). What the library does to it, a crash, a hang, a leak,
// ends this process and no other.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/vddk/vix"
)

func main() {
	runtime.LockOSThread() // the library wants the main thread: see process.go
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "haulback-vddk:", err)
		os.Exit(int(exitcode.Of(err)))
	}
}

func run() error {
	libDir := flag.String("libdir", "", "folder of the VDDK: LIBDIR/lib64/libvixDiskLib.so.N")
	version := flag.Bool("version", false, "print the version and whether the library can be called; with --libdir load it and say which it is")
	flag.Parse()
	switch {
	case *version && *libDir == "":
		return printVersion()
	case *libDir == "" || flag.NArg() > 0:
		return &exitcode.UsageError{Err: errors.New("it is started by haulback and haulbackd, with --libdir and its orders on standard input")}
	}
	if err := enter(*libDir); err != nil {
		return err
	}
	if *version {
		return printLibrary(*libDir)
	}
	// Standard input ends it: a supervisor that is told to stop has a checkpoint to
	// write first, also when systemd tells all of its processes.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	out, err := takeOutput()
	if err != nil {
		return err
	}
	return newSession(*libDir, out).run(os.Stdin)
}

func printVersion() error {
	fmt.Println("haulback-vddk", build.Current().Version)
	if _, err := vix.Load(vix.Config{}); errors.Is(err, vix.ErrUnsupported) {
		return &exitcode.UsageError{Err: err}
	}
	return nil
}

// printLibrary loads the library, talks to nobody, and ends it.
func printLibrary(dir string) error {
	out, err := takeOutput()
	if err != nil {
		return err
	}
	lib, err := vix.Load(vix.Config{LibDir: dir})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "haulback-vddk %s\nVDDK %s\ntransports %s\n", build.Current().Version, lib.Version(), lib.TransportModes()); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- lib.Close(context.Background()) }()
	lib.Run() // until Close
	return <-ended
}
