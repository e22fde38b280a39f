package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/hostctl/record"
	"github.com/haulback/haulback/wire"
)

func recordCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "record", Short: "Show and check the signed record of a failback", Args: cobra.NoArgs}
	cmd.AddCommand(recordVerifyCommand(g), recordShowCommand(g))
	return cmd
}

func recordVerifyCommand(g *global) *cobra.Command {
	var key, former string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Check the signature of a record, and that it does not contradict itself", Args: cobra.ExactArgs(1),
		Long: `Check that a record is as its daemon wrote it, and that it does not contradict itself,
as one that is committed with a disk that nobody verified. Nothing is asked of anybody:
it can be done anywhere. Without --key the record has to be of this site.

A controller keeps its records as records/ID.json in its state directory; "-" is
standard input.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, text, err := readRecord(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			problems, notes, err := g.recordFindings(r, key)
			if err != nil {
				return err
			}
			if former != "" {
				older, err := readBounded(cmd.InOrStdin(), former)
				if err != nil {
					return err
				}
				if !r.Replaces(older) {
					problems = append(problems, "it does not replace the record in "+former)
				}
			}
			return g.proof(cmd, r, text, problems, notes)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "`ID` of the daemon whose record it is, as \"haulback peer id\" prints it there")
	cmd.Flags().StringVar(&former, "former", "", "an earlier version of the record, kept elsewhere, that this `FILE` has to replace")
	return cmd
}

// readBounded reads a file of at most one record.
func readBounded(in io.Reader, path string) ([]byte, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, usage("record: %w; a controller keeps them as records/ID.json in its state directory", err)
			}
			return nil, usage("record: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, record.MaxBytes+1))
	if err != nil {
		return nil, usage("record: %s: %w", path, err)
	}
	return text, nil
}

// readRecord is a record whose signature is good, whoever made it.
func readRecord(in io.Reader, path string) (*record.Record, []byte, error) {
	text, err := readBounded(in, path)
	if err != nil {
		return nil, nil, err
	}
	r, err := record.Parse(text)
	if err == nil {
		return r, text, nil
	}
	if errors.Is(err, record.ErrSchema) {
		return nil, nil, usage("%s: %w", path, err)
	}
	return nil, nil, wire.Errorf(wire.CodeVerify, "%s: %w", path, err)
}

// recordID is the ID of the daemon that signed r.
func recordID(r *record.Record) (wire.ID, error) {
	spki, err := x509.MarshalPKIXPublicKey(r.PublicKey())
	return sha256.Sum256(spki), err
}

// recordFindings asks whose record it is and what it says of itself. A key of a
// stranger signs anything.
func (g *global) recordFindings(r *record.Record, key string) (problems, notes []string, err error) {
	problems, notes = []string{}, []string{}
	id, err := recordID(r)
	if err != nil {
		return nil, nil, err
	}
	if key != "" {
		want, err := wire.ParseID(key)
		if err != nil {
			return nil, nil, &exitcode.UsageError{Err: err}
		}
		if id != want {
			problems = append(problems, "it is signed by "+id.String()+", not by "+want.String())
		}
	} else if s, err := g.site(); err != nil || !s.Signs(r.PublicKey()) {
		problems = append(problems, "it is signed by "+id.String()+", which is no key of this site; name the ID of the daemon whose record it should be with --key")
	}
	if r.KeyID != id.String() {
		problems = append(problems, "it calls its key "+plain(r.KeyID)+", and that is "+id.String())
	}
	for _, f := range r.Check() {
		if f.Note {
			notes = append(notes, plain(f.Text))
		} else {
			problems = append(problems, plain(f.Text))
		}
	}
	return problems, notes, nil
}

// proof prints what a check found.
func (g *global) proof(cmd *cobra.Command, r *record.Record, text []byte, problems, notes []string) error {
	out, f := cmd.OutOrStdout(), &r.Failback
	if !g.json {
		for _, p := range problems {
			fmt.Fprintln(out, "WRONG", p)
		}
		for _, n := range notes {
			fmt.Fprintln(out, "note ", n)
		}
	}
	word := "good"
	if len(problems) > 0 {
		word = "WRONG"
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(text))
	err := g.print(cmd, map[string]any{
		"failback": f.ID, "version": r.Version, "vm": f.Asked.VM, "activity": f.Activity, "signer": r.KeyID, "hash": sum, "problems": problems, "notes": notes,
	}, fmt.Sprintf("%s: record of failback %s of %s, %s, version %d, signed by %s\nhash %s", word, plain(f.ID), plain(f.Asked.VM), plain(f.Activity), r.Version, plain(r.KeyID), sum))
	if err == nil && len(problems) > 0 {
		// With the exit code of a disk that is not proved.
		err = wire.Errorf(wire.CodeVerify, "the record is not to be believed")
	}
	return err
}

func recordShowCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "show FILE", Short: "Print a record", Args: cobra.ExactArgs(1),
		Long: `Print a record. Its signature has to be good, by whichever key; what contradicts itself is
said. Whether it is to be believed: "haulback record verify".`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, text, err := readRecord(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			for _, f := range r.Check() {
				if f.Note {
					continue
				}
				warning := "the record contradicts itself: " + plain(f.Text)
				if !g.json {
					fmt.Fprintln(cmd.ErrOrStderr(), "WARNING:", warning)
				} else if err := report.WriteLine(cmd.OutOrStdout(), report.TypeWarning, report.Text{Text: warning}); err != nil {
					return err
				}
			}
			return g.print(cmd, map[string]any{"run_record": json.RawMessage(text)}, strings.TrimSuffix(recordText(r), "\n"))
		},
	}
}

// recordText is a record for people.
func recordText(r *record.Record) string {
	var b strings.Builder
	f := &r.Failback
	say := func(format string, args ...any) {
		for i, a := range args {
			if s, ok := a.(string); ok {
				args[i] = plain(s)
			}
		}
		fmt.Fprintf(&b, format+"\n", args...)
	}
	say("failback %s of %s, destination %s: %s, the VM is in state %s", f.ID, f.Asked.VM, f.Asked.Destination, f.Activity, f.State)
	say("run %s, started by %s at %s, ended %s", f.Run, f.Owner, at(f.Created), at(f.Ended))
	say("from %s (%s) to %s (%s)", f.Replica.Name, f.Replica.Host, f.Target.Name, f.Target.Host)
	if f.DowntimeMS > 0 {
		say("downtime %s, predicted %s", millis(f.DowntimeMS), millis(f.PredictedMS))
	}
	for _, d := range f.Decisions {
		say("decided   %s  %s by %s %s", at(d.At), d.What, d.By, d.Text)
	}
	for _, o := range f.Overrides {
		say("override  %s by %s: %s", o.What, o.By, o.Text)
	}
	for i := range f.Steps {
		s := &f.Steps[i]
		say("step %2d   %s  %s, %s, attempt %d, %s on %s %s", s.Number, at(s.Began), s.Name, s.State, s.Attempt, s.VM, s.Host, s.Text)
	}
	for i := range f.Disks {
		recordDisk(say, &f.Disks[i])
	}
	for _, o := range f.Overwritten {
		say("overwritten %d bytes of %s on %s, disk %s", o.Bytes, o.Disk.File, o.VM.Host, o.Disk.UUID)
	}
	for _, w := range f.Warnings {
		say("warning   %s", w)
	}
	say("version %d of the record, written %s by %s, signed by %s", r.Version, r.Written.Format(time.RFC3339), r.Controller, r.KeyID)
	return b.String()
}

func recordDisk(say func(format string, args ...any), d *record.Disk) {
	verdict := "NOT VERIFIED"
	switch {
	case d.Excluded:
		verdict = "left out"
	case d.Verified && d.Sampled != "":
		verdict = "verified (" + d.Sampled + ")"
	case d.Verified:
		verdict = "verified"
	}
	switch {
	case d.Root != "":
		verdict += ", root " + d.Root
	case !d.Excluded:
		verdict += ", no root: not all of it was compared at the end"
	}
	say("disk %s   %s", d.Label, verdict)
	for i := range d.Passes {
		p := &d.Passes[i]
		say("  pass %d   asked %s, used %s (%s): %d bytes compared, %d differed, %d written, %d verified", int(p.Number), p.Asked, p.Used, p.Reason,
			p.Counters.Scanned, p.Counters.Differing, p.Counters.Durable, p.Counters.Verified)
	}
	if d.Failure != nil {
		say("  failed: %s", d.Failure.Text)
	}
}

func at(t *time.Time) string {
	if t == nil {
		return "not yet"
	}
	return t.Format(time.RFC3339)
}

func millis(n int64) string { return (time.Duration(n) * time.Millisecond).String() }
