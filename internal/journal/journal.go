package journal

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
)

// Priorities of syslog (RFC 5424, 6.2.1).
const (
	priorityError   = 3
	priorityWarning = 4
	priorityInfo    = 6
	priorityDebug   = 7
)

// Reads tells whether the journal reads this process's standard error. systemd says so in
// JOURNAL_STREAM (systemd.exec(5)), which a child whose standard error goes elsewhere
// inherits too: the journal library compares it with the descriptor.
func Reads() bool {
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}

// Failure writes the error with which a program ends, after the program's name. Each line has
// the priority of an error where the journal reads standard error, which out has to be then. Other hosts
// may be quoted in the error: characters that do not print are replaced.
func Failure(out io.Writer, program string, err error) {
	text := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, fmt.Sprintf("%s: %v", program, err))
	if Reads() {
		text = prefix(priorityError) + strings.ReplaceAll(text, "\n", "\n"+prefix(priorityError))
	}
	_, _ = fmt.Fprintln(out, text)
}

// NewHandler returns the handler that makeHandler makes, which gets out and options. Where
// toJournal is true, each line begins with its priority as "<N>", and has no time: the
// journal notes its own.
//
// makeHandler must return a handler that makes one Write of each record, as those of slog do.
func NewHandler(out io.Writer, toJournal bool, options slog.HandlerOptions, makeHandler func(io.Writer, *slog.HandlerOptions) slog.Handler) slog.Handler {
	if !toJournal {
		return makeHandler(out, &options)
	}
	options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	h := handler{}
	for _, p := range []int{priorityError, priorityWarning, priorityInfo, priorityDebug} {
		h[p] = makeHandler(&prefixed{out, prefix(p)}, &options)
	}
	return h
}

func prefix(priority int) string { return fmt.Sprintf("<%d>", priority) }

// prefixed writes a prefix before each line; each Write is a line.
type prefixed struct {
	out    io.Writer
	prefix string
}

func (p *prefixed) Write(line []byte) (int, error) {
	// One write: lines of several goroutines and of child processes do not mix.
	n, err := p.out.Write(append([]byte(p.prefix), line...))
	return max(0, n-len(p.prefix)), err
}

// handler has a handler for each priority.
type handler map[int]slog.Handler

func priorityOf(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return priorityError
	case level >= slog.LevelWarn:
		return priorityWarning
	case level >= slog.LevelInfo:
		return priorityInfo
	}
	return priorityDebug
}

// Enabled implements slog.Handler.
func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h[priorityOf(level)].Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	return h[priorityOf(r.Level)].Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(one slog.Handler) slog.Handler { return one.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	return h.each(func(one slog.Handler) slog.Handler { return one.WithGroup(name) })
}

func (h handler) each(do func(slog.Handler) slog.Handler) handler {
	all := make(handler, len(h))
	for p, one := range h {
		all[p] = do(one)
	}
	return all
}
