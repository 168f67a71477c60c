package main

import (
	"os"

	"github.com/spf13/cobra"

	"nodeagent/internal/cli"
)

// asking makes a command ask before it runs, unless --yes is given. Only a person at a terminal is
// asked. A script has to give --yes where strict is set: for what destroys keys or names, and could not be
// done without a question before.
func asking(s *shared, cmd *cobra.Command, strict bool, question func(words []string) string) *cobra.Command {
	var yes bool
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		if strict || cli.IsTerminal(os.Stdin) {
			if err := cli.Confirm(yes, os.Stdin, s.std.err, question(words)); err != nil {
				return err
			}
		}
		return run(cmd, words)
	}
	return cmd
}
