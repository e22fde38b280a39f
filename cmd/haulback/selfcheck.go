package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/selfcheck"
)

const selfcheckHelp = `Check what has to be in order before a night: configuration, state directory and
the space there, key, peers, the disks of all exports, limits of the system, and
whether each peer with an address answers over QUIC and TLS. Nothing is changed.

Without --config the configuration of the daemon is looked at when there is one at
` + config.DefaultFile + `. Exit code 0: nothing failed, there may be warnings;
1: something failed; 10: the configuration, the peers or the key have a mistake.`

func selfcheckCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "selfcheck", Short: "Check everything that a copy will need, and change nothing", Long: selfcheckHelp, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSelfcheck(g, cmd, g.config) },
	}
	return cmd
}

// checkSummary counts the levels.
type checkSummary struct {
	OK   int `json:"ok"`
	Warn int `json:"warn"`
	Fail int `json:"fail"`
}

func runSelfcheck(g *global, cmd *cobra.Command, file string) error {
	if file == "" && g.stateDir == "" {
		if _, err := os.Stat(config.DefaultFile); !errors.Is(err, fs.ErrNotExist) {
			file = config.DefaultFile
		}
	}
	var sum checkSummary
	var wrote error
	out := cmd.OutOrStdout()
	failed := selfcheck.Run(cmd.Context(), selfcheck.Options{File: file, StateDir: g.stateDir}, func(r selfcheck.Result) {
		r.Text = report.OneLine(r.Text)
		switch r.Level {
		case selfcheck.OK:
			sum.OK++
		case selfcheck.Warn:
			sum.Warn++
		default:
			sum.Fail++
		}
		if g.json {
			wrote = errors.Join(wrote, report.WriteLine(out, report.TypeCheck, r))
			return
		}
		label := map[selfcheck.Level]string{selfcheck.OK: "OK", selfcheck.Warn: "WARN", selfcheck.Fail: "FAIL"}[r.Level]
		fmt.Fprintf(out, "%-4s  %s: %s\n", label, r.Name, r.Text)
		if r.Remedy != "" {
			fmt.Fprintf(out, "      remedy: %s\n", r.Remedy)
		}
	})
	text := fmt.Sprintf("%d in order, %d warnings, %d failed", sum.OK, sum.Warn, sum.Fail)
	if err := errors.Join(wrote, g.print(cmd, sum, text)); err != nil {
		return err
	}
	for _, r := range failed {
		if r.Usage {
			return usage("selfcheck: %s: %s", r.Name, r.Text)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("selfcheck: %d checks failed, the first: %s: %s", len(failed), failed[0].Name, failed[0].Text)
	}
	return cmd.Context().Err()
}
