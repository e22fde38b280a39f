package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/strict"
)

func configCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Work with the configuration of a daemon", Args: cobra.NoArgs}
	check := &cobra.Command{
		Use: "check [FILE]", Short: "Check a configuration and change nothing", Args: cobra.MaximumNArgs(1),
		Long: "Check a configuration of haulbackd (" + config.DefaultFile + " when none is named), its\ndrop-ins FILE.d/*.toml, the peers and the key that belong to it, and change nothing.\nEvery mistake is told. Exit code 10: there is one.",
		RunE: func(cmd *cobra.Command, args []string) error { return checkConfig(g, cmd, configFile(args)) },
	}
	effective := false
	show := &cobra.Command{
		Use: "show [FILE]", Short: "Show a configuration, and where each value comes from", Args: cobra.MaximumNArgs(1),
		Long: "Show the values of a configuration of haulbackd (" + config.DefaultFile + " when none is\nnamed) and its drop-ins, with the file and line that each stands in; secrets are redacted.",
		RunE: func(cmd *cobra.Command, args []string) error { return showConfig(g, cmd, configFile(args), effective) },
	}
	show.Flags().BoolVar(&effective, "effective", false, "also show the defaults of what the file does not set")
	markdown := false
	schema := &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of a configuration", Args: cobra.NoArgs,
		Long: "Print the JSON Schema (2020-12) of a configuration file of haulbackd, or of a drop-in:\nevery key with its type, default, range and effect, for editors and programs. What\nhangs on the machine or on several keys is for \"haulback config check\" alone. The\noutput is one document, also with --json.",
		RunE: func(cmd *cobra.Command, _ []string) error { return printSchema(cmd.OutOrStdout(), markdown) },
	}
	schema.Flags().BoolVar(&markdown, "markdown", false, "print the tables of docs/configuration.md instead")
	cmd.AddCommand(check, show, schema)
	return cmd
}

func printSchema(out io.Writer, markdown bool) error {
	if markdown {
		_, err := io.WriteString(out, config.Manual())
		return err
	}
	text, err := config.Schema()
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

func configFile(args []string) string {
	if len(args) == 0 {
		return config.DefaultFile
	}
	return args[0]
}

// mistakeLine is one mistake in JSON.
type mistakeLine struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Key    string `json:"key,omitempty"`
	Text   string `json:"text"`
	Place  string `json:"place,omitempty"` // the lines around it, with a caret
}

// mistakes tells what is wrong with a configuration: in JSON each by itself,
// for people all of it in the error, with lines and carets.
func mistakes(g *global, out io.Writer, file string, err error) error {
	if !g.json {
		return &exitcode.UsageError{Err: &exitcode.Lines{Err: err}}
	}
	list := strict.Mistakes(err)
	for _, m := range list {
		line := mistakeLine{m.File, m.Line, m.Column, m.Key, report.OneLine(m.Err.Error()), m.Place}
		if err := report.WriteLine(out, report.TypeError, line); err != nil {
			return err
		}
	}
	return usage("%s: %d mistakes; the first: %w", file, len(list), list[0].Err)
}

// checkedConfig is the summary of a configuration without mistakes.
type checkedConfig struct {
	File     string `json:"file"`
	Files    int    `json:"files"` // that, and its drop-ins
	Listen   string `json:"listen"`
	StateDir string `json:"state_dir"`
	Peers    int    `json:"peers"`
	Exports  int    `json:"exports"`
	Warnings int    `json:"warnings"`
}

func checkConfig(g *global, cmd *cobra.Command, file string) error {
	out := cmd.OutOrStdout()
	cfg, err := config.Check(file)
	if err != nil {
		return mistakes(g, out, file, err)
	}
	var errs []error
	for _, w := range cfg.Warnings {
		if g.json {
			errs = append(errs, report.WriteLine(out, report.TypeWarning, report.Text{Text: report.OneLine(w)}))
			continue
		}
		fmt.Fprintln(out, "warning: "+w)
	}
	sum := checkedConfig{cfg.File, 1 + len(cfg.DropIns), cfg.Listen, cfg.Site.Dir(), len(cfg.Peers), len(cfg.Exports), len(cfg.Warnings)}
	return errors.Join(append(errs, g.print(cmd, sum, "OK: "+cfg.Summary()))...)
}

// settingLine is one value in JSON.
type settingLine struct {
	Key      string `json:"key"`
	Value    any    `json:"value"` // null: neither set, nor a default
	Origin   string `json:"origin"`
	Redacted bool   `json:"redacted,omitempty"`
}

func showConfig(g *global, cmd *cobra.Command, file string, effective bool) error {
	out := cmd.OutOrStdout()
	list, err := config.Settings(file, effective)
	if err != nil {
		return mistakes(g, out, file, err)
	}
	if !g.json {
		text, err := config.Text(list)
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, text)
		return err
	}
	lines := report.NewLines(out)
	for _, s := range list {
		_ = lines.Line(report.TypeSetting, settingLine{s.Path, s.Value, s.Origin, s.Redacted}) // Flush has the error
	}
	_ = lines.Line(report.TypeSummary, struct {
		File     string `json:"file"`
		Settings int    `json:"settings"`
	}{file, len(list)})
	return lines.Flush()
}
