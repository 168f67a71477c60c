package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
	"nodeagent/internal/cli"
)

// command makes a command that sends one request and shows its answer.
func command[Answer any](s *shared, cmd *cobra.Command, ask func(ctx context.Context, c *coreapi.Client, words []string) (Answer, error), show func(io.Writer, Answer)) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		client, err := s.client()
		if err != nil {
			return err
		}
		defer client.Close()
		answer, err := ask(cmd.Context(), client, words)
		if err != nil {
			return err
		}
		return printAnswer(s, answer, show)
	}
	s.output.AddTo(cmd.Flags())
	return cmd
}

func (s *shared) warn(text string) { s.note("warning: %s", text) }

// printAnswer shows an answer, and its warnings.
func printAnswer[Answer any](s *shared, answer Answer, show func(io.Writer, Answer)) error {
	if has, ok := any(answer).(interface{ Warnings() []string }); ok {
		for _, text := range has.Warnings() {
			s.warn(text)
		}
	}
	if s.output == cli.JSON {
		encoder := json.NewEncoder(s.std.out)
		encoder.SetEscapeHTML(false) // links have ampersands
		return encoder.Encode(answer)
	}
	// A tabwriter writes each cell and the end of each line by itself: 20,000 calls for a subscription's links
	// to 10,000 nodes.
	buffer := bufio.NewWriterSize(s.std.out, 64<<10)
	w := tabwriter.NewWriter(buffer, 0, 0, 2, ' ', 0)
	show(w, answer)
	if err := w.Flush(); err != nil {
		return err
	}
	return buffer.Flush()
}

// note writes a line to standard error. What nodes said in it is shown on that line.
func (s *shared) note(format string, args ...any) {
	_, _ = fmt.Fprintln(s.std.err, "node-core:", printable(fmt.Sprintf(format, args...)))
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

// printable is a text of a node as a terminal may get it.
func printable(text string) string { return cli.Printable(text) }

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

// atMost returns the first rows of a list; all of them for 0.
func atMost[T any](limit int, rows iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		n := 0
		for row, err := range rows {
			if limit > 0 && n == limit || !yield(row, err) {
				return
			}
			n++
		}
	}
}
