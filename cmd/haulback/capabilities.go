package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/vddk/worker"
)

// capabilities is what this build can do, for programs that ask first.
type capabilities struct {
	Version    string          `json:"version"`
	Schema     int             `json:"output_schema"`
	Schemes    []string        `json:"schemes"`
	Tracking   []string        `json:"tracking"`
	Transports []string        `json:"transports"`
	Streams    []string        `json:"stream_formats"`
	Features   map[string]bool `json:"features"`
}

// features are the yes and no of Amanda's Application API, and ours, in the
// order they are printed.
var features = [...]string{
	"BACKUP", "RESTORE", "ESTIMATE", "CALCSIZE", "SELFCHECK", "VALIDATE", "FULL", "INCREMENTAL", "RESUME", "MESSAGE-JSON", "PROGRESS-FD", "EXTENTS", "DIFF", "NBD-SERVE", "VDDK",
}

func capabilitiesCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "capabilities", Aliases: []string{"support"}, Short: "Say what this build can do", Args: cobra.NoArgs,
		Long: "Say what this build can do: a line of NAME YES or NAME NO for each ability, as\nAmanda's applications do, and lists of what it knows. VDDK is YES where the worker\nis installed. More lines may come; who does not know one passes over it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := able(cmd.Root())
			if g.json {
				return g.print(cmd, c, "")
			}
			_, err := io.WriteString(cmd.OutOrStdout(), c.text())
			return err
		},
	}
}

// able looks at the commands that are there, so that it cannot promise others.
func able(root *cobra.Command) *capabilities {
	has := func(name string) bool {
		cmd, rest, err := root.Find([]string{name})
		return err == nil && len(rest) == 0 && cmd != root
	}
	_, worker := worker.Find()
	c := &capabilities{
		Version: build.Current().Version, Schema: 1,
		Schemes:    []string{"file", "block", "vmdk", "nbd", "nbds", "nbd+unix", "nbds+unix", "vddk", "osd", "haulback"},
		Tracking:   []string{site.TrackFull, "bitmap", "fiemap", site.TrackExport},
		Transports: []string{site.Auto, site.QUIC, site.TLS},
		Streams:    []string{},
		Features: map[string]bool{
			"BACKUP": has("dump"), "RESTORE": has("restore"), "ESTIMATE": has("estimate"), "CALCSIZE": has("estimate"), "SELFCHECK": has("selfcheck"),
			"VALIDATE": has("verify"), "FULL": true, "INCREMENTAL": true, "RESUME": true, "MESSAGE-JSON": true, "PROGRESS-FD": true,
			"EXTENTS": has("extents"), "DIFF": has("diff"), "NBD-SERVE": has("nbd"), "VDDK": worker == nil && runtime.GOARCH == "amd64",
		},
	}
	if has("dump") {
		c.Streams = append(c.Streams, "haulback-archive/1")
	}
	return c
}

func (c *capabilities) text() string {
	var b strings.Builder
	for _, name := range features {
		fmt.Fprintf(&b, "%s %s\n", name, map[bool]string{true: "YES", false: "NO"}[c.Features[name]])
	}
	for _, l := range []struct {
		name string
		list []string
	}{{"SCHEMES", c.Schemes}, {"TRACKING", c.Tracking}, {"TRANSPORTS", c.Transports}, {"STREAM-FORMATS", c.Streams}} {
		fmt.Fprintf(&b, "%s %s\n", l.name, strings.Join(l.list, ","))
	}
	return b.String()
}
