// Package manual writes the manual pages of a program from its commands, so
// that there is one text of each. The date of a page is SOURCE_DATE_EPOCH when
// that is set: two builds of one commit are equal.
package manual

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/build"
)

// Command is the hidden command "man" of root, which writes the pages. It is for
// those who build packages.
func Command(root *cobra.Command) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "man --dir DIR", Short: "Write the manual pages", Args: cobra.NoArgs, Hidden: true,
		RunE: func(*cobra.Command, []string) error { return write(root, dir) },
	}
	cmd.Flags().StringVar(&dir, "dir", "", "existing `DIR` for the pages")
	_ = cmd.MarkFlagRequired("dir") // fails only for a flag that is not there
	return cmd
}

func write(root *cobra.Command, dir string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return &exitcode.UsageError{Err: fmt.Errorf("--dir %s: there is no such directory; make it first", dir)}
	}
	prepare(root)
	head := &doc.GenManHeader{Section: "1", Source: root.Name() + " " + build.Current().Version, Manual: "haulback"}
	if err := doc.GenManTree(root, head, dir); err != nil {
		return fmt.Errorf("manual pages: %w", err)
	}
	return nil
}

// prepare makes Markdown of the help texts: a table in them is one in the page.
func prepare(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	cmd.Long = markdown(cmd.Long)
	for _, sub := range cmd.Commands() {
		prepare(sub)
	}
}

// markdown sets lines that begin with two spaces apart, as they stand.
func markdown(text string) string {
	var b strings.Builder
	table := false
	for line := range strings.Lines(text) {
		if indented := strings.HasPrefix(line, "  "); indented != table {
			b.WriteString("\n")
			table = indented
		}
		if table {
			b.WriteString("    ")
		}
		b.WriteString(line)
	}
	return b.String()
}
