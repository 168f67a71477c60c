package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/internal/cli"
)

// command makes a command that makes one call and shows its answer.
func command[Answer any](s *shared, cmd *cobra.Command, call adminapi.Call, args func(words []string) (any, error), show func(io.Writer, Answer)) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		body, err := args(words)
		if err != nil {
			return err
		}
		_, err = run(cmd.Context(), s, call, body, show)
		return err
	}
	s.output.AddTo(cmd.Flags())
	return cmd
}

// run makes a call and shows its answer. It returns what the call has changed of nodes.
func run[Answer any](ctx context.Context, s *shared, call adminapi.Call, args any, show func(io.Writer, Answer)) (adminapi.Change, error) {
	var answer Answer
	warned := func(text string) { s.note("warning: %s", text) }
	change, err := adminapi.Do(ctx, s.dataDir, call, args, &answer, warned)
	if err != nil {
		return change, err
	}
	if has, ok := any(answer).(interface{ Warnings() []string }); ok {
		for _, text := range has.Warnings() {
			warned(text)
		}
	}
	if s.output == cli.JSON {
		encoder := json.NewEncoder(s.std.out)
		encoder.SetEscapeHTML(false) // links have ampersands
		return change, encoder.Encode(answer)
	}
	w := tabwriter.NewWriter(s.std.out, 0, 0, 2, ' ', 0)
	show(w, answer)
	return change, w.Flush()
}

// note writes a line to standard error. What nodes said in it is shown on that line.
func (s *shared) note(format string, args ...any) {
	line := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, fmt.Sprintf(format, args...))
	_, _ = fmt.Fprintln(s.std.err, "node-core:", line)
}

// line writes one row of a table.
func line(w io.Writer, cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = printable(text(cell)) // nodes name hosts, tags, addresses and versions
	}
	_, _ = fmt.Fprintln(w, strings.Join(texts, "\t"))
}

func text(cell any) string {
	switch v := cell.(type) {
	case *time.Time:
		if v == nil {
			return "never"
		}
		return v.Format(time.RFC3339)
	case time.Time:
		return v.Format(time.RFC3339)
	case *string:
		if v == nil {
			return "-"
		}
		return *v
	case *int64:
		if v == nil {
			return "-"
		}
		return fmt.Sprint(*v)
	}
	return fmt.Sprint(cell)
}

// printable is a text of a node as a terminal may get it: in one line, and without characters
// that do not print.
func printable(text string) string {
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

// after returns text behind a prefix, and nothing for an empty text.
func after(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// group makes a command that only has subcommands.
func group(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: example}
	cmd.AddCommand(commands...)
	return cmd
}
