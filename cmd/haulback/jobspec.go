package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/cmd/internal/limits"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/wire"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// maxSpecFile is what a daemon takes at most.
const maxSpecFile = 1 << 20

// message is the spec that flags and arguments ask for, or that of --spec.
func (f *jobFlags) message(cmd *cobra.Command, args []string) (*controlv1.JobSpec, error) {
	if f.spec == "" {
		if len(args) != 2 {
			return nil, usage("job submit: name SOURCE and TARGET, or a file with --spec")
		}
		s, err := f.jobSpec(args[0], args[1])
		if err != nil {
			return nil, err
		}
		return jobpb.FromSpec(s), nil
	}
	if len(args) > 0 {
		return nil, usage("job submit: --spec has the disks; leave SOURCE and TARGET out")
	}
	var given []string
	for _, name := range []string{"mode", "priority", "label", "read-rate", "latency", "window", "rate", "transport", "retry", "verify", "cbt", "strict", "sample", "create"} {
		if cmd.Flags().Changed(name) {
			given = append(given, "--"+name)
		}
	}
	if len(given) > 0 {
		return nil, usage("job submit: %s: with --spec write it into the file", strings.Join(given, ", "))
	}
	text, err := readSpec(cmd.InOrStdin(), f.spec)
	if err != nil {
		return nil, err
	}
	m := new(controlv1.JobSpec)
	if err := protojson.Unmarshal(text, m); err != nil {
		return nil, usage("--spec %s: %w", f.spec, err)
	}
	return m, nil
}

func readSpec(stdin io.Reader, path string) ([]byte, error) {
	from := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, usage("--spec: %w", err)
		}
		defer file.Close() // only read
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, maxSpecFile+1))
	if err != nil {
		return nil, usage("--spec %s: %w", path, err)
	}
	if len(text) > maxSpecFile {
		return nil, usage("--spec %s: more than %d bytes", path, maxSpecFile)
	}
	return text, nil
}

// jobSpec checks what can be checked here. What is there, and what is allowed,
// is the daemon's to say.
func (f *jobFlags) jobSpec(source, target string) (*job.Spec, error) {
	s := &job.Spec{Mode: job.Mode(f.mode), Transport: f.transport, Retry: f.retry, Labels: f.labels}
	switch s.Mode {
	case job.Copy, job.Verify:
	default:
		return nil, usage("--mode %q: copy or verify", f.mode)
	}
	if f.sourceTicket != "" || f.targetTicket != "" {
		return nil, usage("a ticket names the run, which the daemon chooses: submit the job, then hand its ticket in with: haulback job ticket")
	}
	if f.retry == 0 {
		s.Retry = -1 // not at all
	}
	switch f.priority {
	case "low":
		s.Priority = job.Low
	case "normal":
	case "high":
		s.Priority = job.High
	default:
		return nil, usage("--priority %q: low, normal or high", f.priority)
	}
	asked, err := f.flags.spec(wire.ModeCopy, source, target) // for its checks
	if err != nil {
		return nil, err
	}
	s.Full = asked.Full
	l, err := f.limits()
	if err != nil {
		return nil, err
	}
	s.Limits = l
	d := job.Disk{Tracking: f.cbt, Strict: f.strict, Sample: f.sample, Create: f.create}
	if d.Source, err = absolute(source); err != nil {
		return nil, err
	}
	if d.Target, err = absolute(target); err != nil {
		return nil, err
	}
	s.Disks = []job.Disk{d}
	return s, nil
}

// absolute makes a path what it is for a process with another directory.
func absolute(text string) (string, error) {
	if strings.HasPrefix(text, "export:") {
		return text, nil
	}
	e, err := transfer.ParseEndpoint(text)
	if err != nil {
		return "", err
	}
	if e.Remote() || e.Disk.Scheme != "" || filepath.IsAbs(text) {
		return text, nil
	}
	path, err := filepath.Abs(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", text, err)
	}
	return path, nil
}

// limits are the flags that limit a job.
func (f *jobFlags) limits() (l job.Limits, err error) {
	if l.Wire, err = limits.Rate(f.rate); err != nil {
		return l, usage("--rate: %w", err)
	}
	if l.Read, err = limits.Rate(f.readRate); err != nil {
		return l, usage("--read-rate: %w", err)
	}
	if l.Latency, err = limits.Latency(f.latency); err != nil {
		return l, usage("--latency: %w", err)
	}
	for _, text := range f.windows {
		w, err := limits.Window(text)
		if err != nil {
			return l, usage("--window: %w", err)
		}
		l.Windows = append(l.Windows, job.Window(w))
	}
	return l, nil
}

// allLimits is a message even when nothing is limited: that is what it says.
func allLimits(l job.Limits) *controlv1.Limits {
	if m := jobpb.FromLimits(l); m != nil {
		return m
	}
	return new(controlv1.Limits)
}
