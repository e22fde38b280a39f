package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/site"
)

// words are what a flag takes, with a word on each; a value that ends in a colon
// goes on.
var words = map[string][]string{
	"transport":   {"auto\tmeasured", "quic\tUDP", "tls\tTCP"},
	"compress":    {"lz4\twhere it gains", "none"},
	"verify":      {"pass\tread back what was written", "full\tread everything again at the end"},
	"destination": {"original\tthe production VM in its place", "existing\ta VM restored beforehand", "new\ta VM that is made"},
	"tracking":    {"hash\tboth sides are read", "cbt\tby change tracking of both hosts"},
	"switch":      {"manual\twhen you say so", "now\tas soon as the disks allow"},
	"priority":    {"low", "normal", "high"},
	"cbt": {
		"full\tcompare everything", "bitmap:\tdirty bitmap NAME of an NBD export", "fiemap:\tPATH of the file it was cloned from",
		"export\tas the source's daemon is configured",
	},
}

// complete gives every flag below cmd that takes one of a few words its words,
// and commands that take a peer the names of those that are paired.
func complete(g *global, cmd *cobra.Command) {
	for name, list := range words {
		if cmd.Flags().Lookup(name) == nil {
			continue
		}
		_ = cmd.RegisterFlagCompletionFunc(name, func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			hint := cobra.ShellCompDirectiveNoFileComp
			var fit []string
			for _, w := range list {
				value, _, _ := strings.Cut(w, "\t")
				if here := cmd.Name() == "extents" || cmd.Name() == "estimate"; here && (value == site.TrackFull || value == site.TrackExport) {
					continue // these ask the disk itself
				}
				if strings.HasPrefix(value, begun) {
					fit = append(fit, w)
					if strings.HasSuffix(value, ":") {
						hint |= cobra.ShellCompDirectiveNoSpace
					}
				}
			}
			return fit, hint
		})
	}
	if cmd.HasParent() && cmd.Parent().Name() == "peer" && cmd.Name() == "remove" {
		cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			s, err := g.site()
			if err != nil || len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			peers, _ := s.Peers() // of what cannot be read, nothing is offered
			var names []string
			for _, p := range peers {
				names = append(names, p.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		}
	}
	for _, sub := range cmd.Commands() {
		complete(g, sub)
	}
}
