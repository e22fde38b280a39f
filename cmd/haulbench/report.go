package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/bench/report"
	"github.com/haulback/haulback/bench/result"
	"github.com/haulback/haulback/cmd/haulback/exitcode"
)

// reportCommand is haulbench report.
func reportCommand() *cobra.Command {
	var out, reasons string
	cmd := &cobra.Command{
		Use: "report [FILE...]", Short: "Make a page and pictures of results",
		Long: `Make README.md and plots (SVG and PNG) of files of results, as haulbench and
haulbench wan write them. Machine and settings are those of the first file. Without
a FILE, results.jsonl and wan.jsonl in the directory of --out are taken, as far as
they are there.

Why a target was missed can be said in reasons.json, in the same directory:
{"P7": "text"}, or {"P7: CONDITION": "text"} with a condition as on the page. Of
results in memory or cold it is "P7 in memory" or "P7 cold", with a condition or
without.`,
		RunE: func(_ *cobra.Command, files []string) error {
			if len(files) == 0 {
				if files = resultsIn(out); len(files) == 0 {
					return &exitcode.UsageError{Err: fmt.Errorf("%s: no results there; name a file of them", out)}
				}
			}
			if reasons == "" {
				reasons = filepath.Join(out, "reasons.json")
			}
			return writeReport(out, files, reasons)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&out, "out", "docs/bench", "`DIR` for the page and the pictures")
	fl.StringVar(&reasons, "reasons", "", "`FILE` with the reasons for missed targets (default reasons.json in the directory of --out)")
	return cmd
}

// resultsIn are the files of results in dir.
func resultsIn(dir string) (files []string) {
	for _, name := range []string{"results.jsonl", wanResults} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			files = append(files, filepath.Join(dir, name))
		}
	}
	return files
}

// writeReport makes one report of several files.
func writeReport(dir string, files []string, reasons string) error {
	var all result.Results
	for i, name := range files {
		r, err := readResults(name)
		if err != nil {
			return err
		}
		if i == 0 {
			all.Setup = r.Setup
		}
		all.Peers, all.LeftOut = append(all.Peers, r.Peers...), append(all.LeftOut, r.LeftOut...)
		all.Images, all.Runs = append(all.Images, r.Images...), append(all.Runs, r.Runs...)
	}
	why, err := report.ReadReasons(reasons)
	if err != nil {
		return err
	}
	return report.Write(dir, &all, why)
}

func readResults(name string) (*result.Results, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &exitcode.UsageError{Err: err}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := result.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}
