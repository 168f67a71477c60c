package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// NewManCmd returns the hidden command `man`, which prints the manual page of a program: one page
// with every command of root, as roff (man(7)). The packages have it. cobra's own generator makes
// a page of each command, and would link a Markdown and a YAML library into the programs.
func NewManCmd(out io.Writer, version string) *cobra.Command {
	return &cobra.Command{
		Use:    "man",
		Short:  "Print the manual page as roff",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(out, manPage(cmd.Root(), version))
			return err
		},
	}
}

func manPage(root *cobra.Command, version string) string {
	var page strings.Builder
	fmt.Fprintf(&page, ".TH %s 1 \"\" %s\n", quoted(strings.ToUpper(root.Name())), quoted(root.Name()+" "+version))
	fmt.Fprintf(&page, ".SH NAME\n%s \\- %s\n", escaped(root.Name()), escaped(root.Short))
	fmt.Fprintf(&page, ".SH SYNOPSIS\n.B %s\nCOMMAND [OPTION]...\n", escaped(root.Name()))
	if root.Long != "" {
		page.WriteString(".SH DESCRIPTION\n" + escaped(root.Long) + "\n")
	}
	manFlags(&page, ".SH OPTIONS OF ALL COMMANDS\n", root.PersistentFlags())
	page.WriteString(".SH COMMANDS\n")
	for _, cmd := range root.Commands() {
		manCommand(&page, cmd)
	}
	page.WriteString(".SH EXAMPLES\n.nf\n" + escaped(root.Example) + "\n.fi\n")
	return page.String()
}

// manCommand writes the sections of a command and of the commands below it.
func manCommand(page *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
		return
	}
	if cmd.HasSubCommands() {
		for _, sub := range cmd.Commands() {
			manCommand(page, sub)
		}
		return
	}
	long := cmd.Long
	if long == "" {
		long = cmd.Short
	}
	fmt.Fprintf(page, ".SS %s\n%s\n", quoted(cmd.UseLine()), escaped(long))
	manFlags(page, "", cmd.LocalNonPersistentFlags())
	if cmd.Example != "" {
		page.WriteString(".PP\nExamples:\n.PP\n.nf\n" + escaped(cmd.Example) + "\n.fi\n")
	}
}

func manFlags(page *strings.Builder, heading string, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		page.WriteString(heading)
		heading = ""
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			name += " " + strings.ToUpper(kind)
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(page, ".TP\n.B %s\n%s\n", escaped(name), escaped(usage))
	})
}

var roff = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'")

// escaped returns text that roff prints as it is. A line that begins with a dot or an apostrophe
// would be a request to roff (groff(7)).
func escaped(text string) string {
	return strings.TrimPrefix(roff.Replace("\n"+text), "\n")
}

// quoted returns text as one argument of a request.
func quoted(text string) string {
	return `"` + strings.ReplaceAll(escaped(text), `"`, `""`) + `"`
}
