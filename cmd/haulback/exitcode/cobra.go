package exitcode

import (
	"fmt"

	"github.com/spf13/cobra"
)

// Mark makes wrong arguments, flags and subcommands of cmd and all below it
// usage errors.
func Mark(cmd *cobra.Command) {
	if !cmd.HasParent() {
		cmd.InitDefaultCompletionCmd()
		cmd.InitDefaultHelpCmd()
	}
	if cmd.HasSubCommands() && !cmd.Runnable() { // else cobra shows help for anything, and all is well
		cmd.Args = cobra.NoArgs
		cmd.RunE = NoVerb
	}
	if cmd.Name() == "help" {
		cmd.Args = helpTopic
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return &UsageError{Err: err}
			}
			return nil
		}
	}
	if cmd.PreRunE == nil { // cobra looks after it, and its error is of no kind
		cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
			if err := cmd.ValidateRequiredFlags(); err != nil {
				return &UsageError{Err: err}
			}
			return nil
		}
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &UsageError{Err: err} })
	for _, sub := range cmd.Commands() {
		Mark(sub)
	}
}

// NoVerb is what a command does that only has commands below it: an empty
// variable in a script must not look like something that was done. The help
// goes where it is no output.
func NoVerb(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(cmd.ErrOrStderr())
	if err := cmd.Help(); err != nil {
		return err
	}
	return &UsageError{Err: fmt.Errorf("%s: name one of its commands; nothing was done", cmd.CommandPath())}
}

// helpTopic refuses help about a command that is not there.
func helpTopic(cmd *cobra.Command, args []string) error {
	if _, rest, err := cmd.Root().Find(args); err != nil || len(rest) > 0 {
		return fmt.Errorf("no command %q to tell about", args)
	}
	return nil
}
