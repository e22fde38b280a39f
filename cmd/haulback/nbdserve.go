package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/vddk/nbd"
	"github.com/haulback/haulback/wire"
)

// nbdServe is one disk on its way to NBD clients.
type nbdServe struct {
	g     *global
	flags *nbdFlags
	disk  *transfer.Endpoint
	place *nbdPlace
}

// nbdServing is what is printed when clients may come.
type nbdServing struct {
	Disk     string   `json:"disk"`
	Size     int64    `json:"size"`
	ReadOnly bool     `json:"read_only"`
	Export   string   `json:"export"`
	URI      string   `json:"uri"`
	Warnings []string `json:"warnings,omitempty"`
}

// newNBDServe checks everything that can be checked without touching a disk.
func newNBDServe(g *global, f *nbdFlags, text string) (*nbdServe, error) {
	s := &nbdServe{g: g, flags: f}
	var err error
	if s.disk, err = transfer.ParseEndpoint(text); err != nil {
		return nil, err
	}
	switch {
	case s.disk.Remote():
		return nil, usage("%s: that is an export of another daemon; run haulback nbd serve on its host", text)
	case f.readOnly && f.writable:
		return nil, usage("--read-only and --writable: say one of them")
	case len(f.name) > 4096 || strings.ContainsRune(f.name, 0):
		return nil, usage("--name: at most 4096 bytes, without a zero byte")
	}
	s.place, err = newNBDPlace(f)
	return s, err
}

// run opens the disk, serves it, and sees to it that it is closed well.
func (s *nbdServe) run(cmd *cobra.Command) (err error) {
	mode := vddk.ReadOnly
	if s.flags.writable {
		mode = vddk.ReadWrite
	}
	disk, err := vddk.Open(cmd.Context(), s.disk.Text, vddk.Options{Mode: mode})
	if err != nil {
		return fmt.Errorf("open %w", err)
	}
	defer func() { err = errors.Join(err, s.close(disk)) }()
	warnings, err := s.warnings(disk)
	if err != nil {
		return err
	}
	ln, err := s.place.open(cmd.Context())
	if err != nil {
		return err
	}
	defer s.place.remove()
	return s.serve(cmd, disk, ln, warnings)
}

// close makes durable what clients wrote. For a disk that was only read there
// is nothing that could be lost.
func (s *nbdServe) close(disk vddk.Disk) error {
	if !s.flags.writable {
		disk.Close()
		return nil
	}
	if err := errors.Join(disk.Flush(), disk.Check(), disk.Close()); err != nil {
		return &exitcode.Told{Text: "the disk could not be flushed and closed; what clients wrote since their last good flush may be lost: " + err.Error(), Err: errNotDurable}
	}
	return nil
}

// errNotDurable has no exit code of its own, whatever the disk said: 1.
var errNotDurable = errors.New("not durable")

// serve lets clients in until the context ends, the last one has left, or the
// disk is lost.
func (s *nbdServe) serve(cmd *cobra.Command, disk vddk.Disk, ln []net.Listener, warnings []string) error {
	ctx, end := context.WithCancelCause(cmd.Context())
	cancel := func() { end(nil) }
	var watch sync.WaitGroup
	watch.Go(func() { watchDisk(ctx, watchEvery, disk, end) })
	defer watch.Wait()
	defer cancel()
	d := disk.Describe()
	cfg := nbd.ServerConfig{
		TLS: s.place.tls, Log: s.logger(cmd.ErrOrStderr()),
		Exports: []nbd.Export{s.export(disk, &d)},
	}
	if s.flags.once {
		cfg.Idle = cancel
	}
	server, err := nbd.NewServer(cfg)
	if err != nil {
		return usage("%w", err)
	}
	served := make(chan error, len(ln)) // all of them: nobody waits to give it
	for _, l := range ln {
		go func() { served <- server.Serve(ctx, l) }()
	}
	err = s.tell(cmd, &nbdServing{
		Disk: s.disk.Text, Size: d.Size, ReadOnly: !s.flags.writable,
		Export: s.flags.name, URI: s.place.uri(ln[0].Addr(), s.flags.name), Warnings: warnings,
	})
	if err != nil {
		cancel()
	}
	for range ln {
		err = errors.Join(err, <-served)
		cancel()
	}
	if lost, ok := errors.AsType[*errDiskLost](context.Cause(ctx)); ok {
		err = errors.Join(lost, err)
	}
	return err
}

// export is the disk as clients see it. The map of a disk of another server is
// hearsay, good for skipping and not for answering a read; that of a file is the
// kernel's own.
func (s *nbdServe) export(disk vddk.Disk, d *vddk.Description) nbd.Export {
	return nbd.Export{
		Name: s.flags.name, Device: disk, ReadOnly: !s.flags.writable, NoTrim: !d.CanPunch, FastZero: d.CanPunch,
		ReadHoles: d.Coldness == coldServer,
	}
}

// coldServer is the Coldness of every disk that is reached through a server.
const coldServer = "server"

// tell says that clients may come: to whoever reads, and to systemd.
func (s *nbdServe) tell(cmd *cobra.Command, v *nbdServing) error {
	for _, w := range v.Warnings {
		if !s.g.json {
			fmt.Fprintln(cmd.ErrOrStderr(), "haulback: warning: "+report.OneLine(w))
		}
	}
	how := "writable"
	if v.ReadOnly {
		how = "read-only"
	}
	if s.g.json {
		if err := report.WriteLine(cmd.OutOrStdout(), report.TypeServing, v); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintf(cmd.OutOrStdout(), "serving %s %s at %s\n", v.Disk, how, v.URI); err != nil {
		return err
	}
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady) // nobody listens: fine
	return nil
}

// logger tells of failing disks. Clients that come and go are no news.
func (s *nbdServe) logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.LevelWarn}
	if s.g.json {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// warnings are what the journal and the driver know about the disk, and whoever
// uses it should.
func (s *nbdServe) warnings(disk vddk.Disk) ([]string, error) {
	var list []string
	d := disk.Describe()
	for _, w := range []string{d.Warning, d.SourceWarning} {
		if w != "" {
			list = append(list, w)
		}
	}
	site, err := s.g.site()
	if err != nil {
		return nil, err
	}
	journals, err := site.Journals()
	if err != nil {
		return nil, err
	}
	defer journals.Close()
	st, err := mover.ReadJournal(journals, disk.Identity())
	switch {
	case errors.Is(err, mover.ErrHeld):
		return append(list, s.disk.Text+": a run works on it now; what clients read changes under them"), nil
	case err != nil:
		return nil, err
	}
	if w := s.stateWarning(&st); w != "" {
		list = append(list, w)
	}
	return list, nil
}

func (s *nbdServe) stateWarning(st *mover.JournalState) string {
	switch {
	case st.State == wire.StateInconsistent:
		return fmt.Sprintf("%s is a half-written target: a run began to overwrite it and did not end; its contents are neither the old nor the new (haulback probe %s)", s.disk.Text, s.disk.Text)
	case st.State == wire.StatePoisoned:
		return fmt.Sprintf("%s is poisoned: what a run wrote to it could not be made durable or read back; do not trust its contents (haulback probe %s)", s.disk.Text, s.disk.Text)
	case st.State != wire.StateClean && s.flags.writable:
		return fmt.Sprintf("%s is %s by its journal; what clients write is not in that journal: verify it again before it is used", s.disk.Text, st.State)
	}
	return ""
}
