package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/manual"
	"github.com/haulback/haulback/cmd/internal/sbom"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/transfer"
)

// global are the flags that every command has.
type global struct {
	stateDir string
	config   string // of a daemon; empty: its default, if it is there
	json     bool
	volumes  volumes
}

func (g *global) site() (*site.Site, error) { return site.At(g.stateDir, "") }

// command is haulback and its subcommands.
func command(g *global) *cobra.Command {
	root := &cobra.Command{
		Use: "haulback", Short: "Bring disks home: move only what differs, and prove it",
		Long:          "Bring disks home: move only what differs, and prove it.\n\n" + transfer.Help,
		SilenceErrors: true, SilenceUsage: true, Args: cobra.NoArgs,
		RunE: exitcode.NoVerb,
	}
	root.PersistentFlags().StringVar(&g.stateDir, "state-dir", "", "`DIR` with key, peers and journals (default /var/lib/haulback for root, its home for the user of a service, else ~/.local/state/haulback)")
	root.PersistentFlags().StringVar(&g.config, "config", "", "configuration `FILE` of a daemon, whose [[openstorage]] profiles osd:// disks name (default "+config.DefaultFile+" if it is there)")
	root.PersistentFlags().BoolVar(&g.json, "json", false, "print JSON, one object a line")
	root.AddCommand(copyCommand(g), verifyCommand(g), probeCommand(g), dumpCommand(g), restoreCommand(g), nbdCommand(g))
	root.AddCommand(extentsCommand(g), diffCommand(g), estimateCommand(g), capabilitiesCommand(g), selfcheckCommand(g), configCommand(g))
	root.AddCommand(statusCommand(g), failbackCommand(g), jobCommand(g), peerCommand(g), ticketCommand(g), auditCommand(g), recordCommand(g), versionCommand(g), manual.Command(root))
	complete(g, root)
	exitcode.Mark(root)
	return root
}

func versionCommand(g *global) *cobra.Command {
	var parts bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if parts {
				return sbom.Own(cmd.OutOrStdout())
			}
			return g.print(cmd, build.Current(), "haulback "+build.Current().String())
		},
	}
	cmd.Flags().BoolVar(&parts, "sbom", false, "print what this program is built from instead: modules and toolchain, as CycloneDX JSON")
	return cmd
}

func usage(format string, args ...any) error {
	return &exitcode.UsageError{Err: fmt.Errorf(format, args...)}
}
