package exitcode

import "github.com/spf13/cobra"

// Mark makes wrong arguments and flags of cmd and all below it usage errors.
func Mark(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
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
