package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/manual"
	"github.com/haulback/haulback/cmd/internal/sbom"
)

// command is haulbackd and its subcommands.
func command() *cobra.Command {
	root := &cobra.Command{
		Use: "haulbackd", Short: "Export disks to paired peers",
		SilenceErrors: true, SilenceUsage: true, Args: cobra.NoArgs,
		RunE: exitcode.NoVerb,
	}
	root.AddCommand(runCommand(), configCommand(), versionCommand())
	root.AddCommand(manual.Command(root))
	exitcode.Mark(root)
	return root
}

func runCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "run --config FILE", Short: "Run the daemon in the foreground", Args: cobra.NoArgs,
		Long: "Run the daemon in the foreground. SIGHUP reads peers and exports again;\nSIGTERM makes a last checkpoint of every target and stops.",
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), file) },
	}
	configFlag(cmd, &file)
	return cmd
}

func configCommand() *cobra.Command {
	var file string
	check := &cobra.Command{
		Use: "check --config FILE", Short: "Check a configuration and change nothing", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Check(file)
			if err != nil {
				return &exitcode.UsageError{Err: err}
			}
			for _, w := range cfg.Warnings {
				fmt.Fprintln(cmd.OutOrStdout(), "warning: "+w)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "OK: "+cfg.Summary())
			return err
		},
	}
	configFlag(check, &file)
	cmd := &cobra.Command{Use: "config", Short: "Work with configuration files", Args: cobra.NoArgs}
	schema := &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of a configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := config.Schema()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.AddCommand(check, schema)
	return cmd
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", config.DefaultFile, "configuration `FILE`")
}

// load makes every mistake in a configuration exit code 10.
func load(file string) (*config.Config, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, &exitcode.UsageError{Err: err}
	}
	return cfg, nil
}

func versionCommand() *cobra.Command {
	var asJSON, parts bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			switch {
			case parts:
				err = sbom.Own(cmd.OutOrStdout())
			case asJSON:
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(build.Current())
			default:
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "haulbackd", build.Current())
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&parts, "sbom", false, "print what this program is built from instead: modules and toolchain, as CycloneDX JSON")
	return cmd
}
