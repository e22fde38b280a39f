package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/archive"
)

// pipeSize is what is asked for of the pipe that a stream goes through: a batch,
// so that the two programs do not take turns for every 64 KiB.
const pipeSize = 1 << 20

// streamOut is standard output for a stream. Writing ends when ctx does.
func streamOut(ctx context.Context) (f *os.File, done func(), err error) {
	if term.IsTerminal(int(os.Stdout.Fd())) {
		return nil, nil, usage("standard output is a terminal: send the stream to a file or a program, as in haulback dump DISK >FILE")
	}
	if how := null(os.Stdout); how == unix.O_RDWR { // as the runtime opens what is closed
		return nil, nil, usage("standard output is closed, or is /dev/null: nobody would have the stream; send it to a file or a program, or say >/dev/null to throw it away")
	}
	f, done = own(ctx, os.Stdout, unix.O_WRONLY)
	return f, done, nil
}

// null is how f was opened when it is /dev/null, else -1.
func null(f *os.File) int {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return -1
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return -1
	}
	return flags & unix.O_ACCMODE
}

// streamIn is standard input for a stream. Reading ends when ctx does.
func streamIn(ctx context.Context) (f *os.File, done func(), err error) {
	if term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, nil, usage("standard input is a terminal: give the stream, as in haulback restore DISK <FILE")
	}
	f, done = own(ctx, os.Stdin, unix.O_RDONLY)
	return f, done, nil
}

// own is f, or, of a pipe, a description of our own that does not block: a
// signal ends a read that waits for a tape, and nobody who shares the pipe
// notices.
func own(ctx context.Context, f *os.File, flag int) (*os.File, func()) {
	if st, err := f.Stat(); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		return f, func() {}
	}
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, pipeSize) // it may be more than a user is allowed
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flag|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return f, func() {} // a pipe of another user: the second signal ends the wait
	}
	p := os.NewFile(uintptr(fd), "the pipe")
	stop := context.AfterFunc(ctx, func() { _ = p.SetDeadline(time.Unix(1, 0)) })
	return p, func() {
		stop()
		_ = p.Close() // a close that matters was made before
	}
}

// streamError says what of an error belongs to the pipe.
func streamError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	text := err.Error()
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Remote { // the target half of this very process
		text = e.Text
		if e.Code == wire.CodeOpen {
			err = &exitcode.UsageError{Err: err}
		}
	}
	if e, ok := errors.AsType[*mover.DiskError](err); ok && errors.Is(err, archive.ErrDamaged) {
		text = e.Err.Error() // the source of a restore is the stream
	}
	_, incomplete := errors.AsType[*mover.IncompleteError](err)
	switch {
	case errors.Is(err, exitcode.ErrCanceled):
		text = "stopped by a signal"
	case errors.Is(err, syscall.EPIPE):
		text = "the program that reads the stream has gone: " + text
	}
	if incomplete {
		text += "; the target is not verified: restore the stream again, from its start"
	}
	return &exitcode.Told{Text: text, Err: err}
}

// fromFile fills spec, which has the flags, from a JSON file where one is named.
func fromFile(cmd *cobra.Command, file string, spec any) error {
	if file == "" {
		return nil
	}
	var in io.Reader = cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return usage("--spec: %w", err)
		}
		defer f.Close() // only read
		in = f
	}
	d := json.NewDecoder(io.LimitReader(in, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(spec); err != nil {
		return usage("--spec %s: %w", file, err)
	}
	if d.More() {
		return usage("--spec %s: more than one object", file)
	}
	return nil
}

// diskOrSpec wants the one argument, or none where a file has it.
func diskOrSpec(file *string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if *file != "" {
			return cobra.NoArgs(cmd, args)
		}
		return cobra.ExactArgs(1)(cmd, args)
	}
}

// parseBase reads what names a base: a root, a run, or a file with the JSON
// lines of the command that made it.
func parseBase(text string) (b archive.Base, err error) {
	if id, err := uuid.Parse(text); err == nil {
		b.Run = id
		return b, nil
	}
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == cbt.DigestSize {
		b.Root = cbt.Digest(raw)
		return b, nil
	}
	f, err := os.Open(text)
	if err != nil {
		return b, fmt.Errorf("%q is no root of 64 hexadecimal digits, no run ID, and no file: %w", text, err)
	}
	defer f.Close() // only read
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l struct {
			Type  string `json:"message_type"`
			Mode  string `json:"mode"`
			State string `json:"state"`
			Run   string `json:"run"`
			Root  string `json:"root"`
		}
		if json.Unmarshal(lines.Bytes(), &l) != nil || l.Type != "summary" {
			continue
		}
		if l.Mode != report.ModeDump && l.State != wire.StateVerified.String() {
			continue // it did not end well, or it was a look only
		}
		b = archive.Base{}
		if id, err := uuid.Parse(l.Run); err == nil {
			b.Run = id
		}
		if raw, err := hex.DecodeString(l.Root); err == nil && len(raw) == cbt.DigestSize {
			b.Root = cbt.Digest(raw)
		}
	}
	if err := lines.Err(); err != nil {
		return b, fmt.Errorf("%s: %w", text, err)
	}
	if b.IsZero() {
		return b, fmt.Errorf("%s has no summary of a dump, a restore or a copy that ended well", text)
	}
	return b, nil
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
