package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// tries is how often a name may be mistyped.
const tries = 3

// confirm asks for a name to be typed. Nobody is asked who cannot answer: then
// --yes says that the caller knows what he does.
func (h *homing) confirm(cmd *cobra.Command, name, question string, yes bool) error {
	in, isFile := cmd.InOrStdin().(*os.File)
	switch {
	case yes:
		return nil
	case h.g.json:
		return usage("%s: with --json nobody is asked; add --yes. Nothing was done", cmd.CommandPath())
	case !isFile || !term.IsTerminal(int(in.Fd())):
		return usage("%s: standard input is no terminal, so nobody can be asked; add --yes. Nothing was done", cmd.CommandPath())
	}
	return askName(cmd.Context(), in, cmd.ErrOrStderr(), name, question)
}

func askName(ctx context.Context, in io.Reader, out io.Writer, name, question string) error {
	fmt.Fprintf(out, "\n%s\n", question)
	lines := make(chan string)
	go func() { // ends with the process at the latest: a read of a terminal cannot be stopped
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for range tries {
		fmt.Fprintf(out, "Type %s to go on, Ctrl-C to leave: ", name)
		select {
		case line, open := <-lines:
			switch {
			case !open:
				fmt.Fprintln(out)
				return usage("nothing was typed and nothing was done")
			case strings.TrimSpace(line) == name:
				return nil
			}
			fmt.Fprintln(out, "That is not its name.")
		case <-ctx.Done():
			fmt.Fprintln(out)
			return fmt.Errorf("%w; nothing was done", context.Cause(ctx))
		}
	}
	return usage("the name was not typed; nothing was done")
}
