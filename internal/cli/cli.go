// Package cli has what the command lines of node-agent and node-core share: a
// wrong word is an error that names it, and --output accepts only the formats
// that exist.
package cli

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// maxDistance is how many letters a wrong word may be away from the name of a
// command that is suggested for it.
const maxDistance = 2

// Strict completes a tree of commands, to be called on its root after the last
// AddCommand. Afterwards every error about the command line is one line that names
// the wrong word and the help to read.
//
// cobra alone prints the help of a group and reports success where the word after
// the group's name is no subcommand (`node-core subscription disabel 1`).
func Strict(root *cobra.Command) {
	root.SetHelpCommand(newHelpCmd(root))
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(groupUsage(root.UsageFunc()))
	tighten(root)
}

// groupUsage makes the usage of a group leave out the line "node-core node [flags]": a
// group runs only to reject words. A template for the usage would say this in fewer
// lines, and text/template would add 1.7 MB to node-core.
func groupUsage(usage func(*cobra.Command) error) func(*cobra.Command) error {
	return func(cmd *cobra.Command) error {
		if cmd.HasSubCommands() {
			defer func(run func(*cobra.Command, []string) error) { cmd.RunE = run }(cmd.RunE)
			cmd.RunE = nil
		}
		return usage(cmd)
	}
}

func tighten(cmd *cobra.Command) {
	if !cmd.HasSubCommands() {
		withUsage(cmd)
		return
	}
	cmd.SuggestionsMinimumDistance = maxDistance
	cmd.Args = func(cmd *cobra.Command, words []string) error {
		if len(words) > 0 {
			return unknownCommand(cmd, words[0])
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	for _, sub := range cmd.Commands() {
		tighten(sub)
	}
}

// withUsage adds the command's usage to the error about a wrong number of arguments.
func withUsage(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		return
	}
	cmd.Args = func(cmd *cobra.Command, words []string) error {
		if err := check(cmd, words); err != nil {
			return fmt.Errorf("%w; usage: %s", err, cmd.UseLine())
		}
		return nil
	}
}

// unknownCommand is the error about a word that names no subcommand of group.
func unknownCommand(group *cobra.Command, word string) error {
	near := group.SuggestionsFor(word)
	if len(near) == 0 {
		return fmt.Errorf("unknown command %q for %q; '%s --help' lists the commands", word, group.CommandPath(), group.CommandPath())
	}
	for i := range near {
		near[i] = fmt.Sprintf("%q", near[i])
	}
	return fmt.Errorf("unknown command %q for %q; did you mean %s?", word, group.CommandPath(), strings.Join(near, " or "))
}

// flagError names a wrong subcommand rather than the flags after it, which the
// group does not know because they are the subcommand's.
func flagError(cmd *cobra.Command, err error) error {
	if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
		return unknownCommand(cmd, words[0])
	}
	return fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())
}

func newHelpCmd(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:     "help [command]",
		Short:   "Show the help of a command",
		Example: "  " + root.Name() + " help " + root.Commands()[0].Name(),
		Args:    cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, words []string) error {
			cmd, rest, err := root.Find(words)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(cmd, rest[0])
			}
			cmd.InitDefaultHelpFlag()
			cmd.InitDefaultVersionFlag()
			return cmd.Help()
		},
	}
}

// Output is the value of the flag --output: how a command prints what it read. The
// command line is refused where it names another format.
type Output string

// The formats.
const (
	Table Output = "table"
	JSON  Output = "json"
)

// AddTo adds the flag, also as -o, to the flags of a command.
func (o *Output) AddTo(flags *pflag.FlagSet) {
	*o = Table
	flags.VarP(o, "output", "o", "table or json")
}

// String implements pflag.Value.
func (o *Output) String() string { return string(*o) }

// Type implements pflag.Value; it is the placeholder that the help shows.
func (o *Output) Type() string { return "string" }

// Set implements pflag.Value.
func (o *Output) Set(format string) error {
	switch Output(format) {
	case Table, JSON:
		*o = Output(format)
		return nil
	}
	return fmt.Errorf("want %s or %s", Table, JSON)
}

// Printable is a text of another program or host as a terminal may get it: in one line, and without
// characters that do not print, such as those that begin a terminal's commands.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return unicode.ReplacementChar
	}, text)
}
