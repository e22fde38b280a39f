package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

const diffHelp = `Compare two disks as haulback verify does, and list every range that differs, in
disk order, as it is found. Nothing is written. Exit code 0: equal; 4: different.

Ranges are whole grains of 64 KiB (the last one may be shorter); neighbours are
one range. What cannot be read on either side is listed as unreadable: whether it
differs nobody knows. A lost link is picked up again, and nothing is listed twice
or left out. Only a list with a summary after it is complete.

One of the two disks has to be of this machine.

` + transfer.Help

func diffCommand(g *global) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use: "diff A B", Short: "List where two disks differ, and change nothing", Long: diffHelp, Args: cobra.ExactArgs(2),
		Example: "  haulback diff /srv/a.img /srv/b.img\n  haulback diff /dev/vg/replica haulback://home:7420/vm1-disk0 --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return diff(cmd.Context(), g, &f, args[0], args[1])
		},
	}
	linkFlags(cmd, &f)
	return cmd
}

func diff(ctx context.Context, g *global, f *flags, a, b string) error {
	for _, text := range []string{a, b} {
		e, err := transfer.ParseEndpoint(text)
		if err != nil {
			return err
		}
		if !e.Remote() {
			break
		}
		if text == b {
			return usage("diff of two exports: one of the disks has to be of this machine; run haulback diff where %s is, with its path", a)
		}
	}
	list := &diffList{out: os.Stdout, json: g.json}
	return g.transfer(ctx, f, wire.ModeVerify, a, b, func(t *transfer.Transfer) report.Output {
		t.Different = list.add
		return g.outputBeside(os.Stdout)
	}, list.end)
}

// outputBeside is output for a command that writes lines of its own to out: no
// progress is drawn between them.
func (g *global) outputBeside(out *os.File) report.Output {
	if !g.json && term.IsTerminal(int(out.Fd())) {
		return report.NewText(out, os.Stderr, func() int { return 0 })
	}
	return g.output()
}

// different is the kind of an extent of a diff.
const different = "different"

// diffList writes ranges as they come. That it cannot is an error of the
// command: a list that lacks its end is none.
type diffList struct {
	mu   sync.Mutex
	out  io.Writer
	json bool
	n    int64
	err  error
}

func (l *diffList) add(r mover.BadRun) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	e := extentLine{Off: r.Off, Len: r.Len, Kind: different, Unreadable: r.Unreadable}
	if l.json {
		l.err = report.WriteLine(l.out, report.TypeExtent, e)
		return
	}
	if l.n++; l.n == 1 {
		fmt.Fprint(l.out, extentTitle)
	}
	_, l.err = io.WriteString(l.out, e.text())
}

// end is the error of the list, or that of the comparison.
func (l *diffList) end(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return fmt.Errorf("the list is not complete: %w", l.err)
	}
	return err
}
