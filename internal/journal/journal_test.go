package journal

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

func text(out io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(out, o) }
func jsonLines(out io.Writer, o *slog.HandlerOptions) slog.Handler {
	return slog.NewJSONHandler(out, o)
}

// Each line that goes to the journal has its priority, and no time. Any other log has the
// time and no priority.
func TestLines(t *testing.T) {
	for name, c := range map[string]struct {
		toJournal bool
		make      func(io.Writer, *slog.HandlerOptions) slog.Handler
		want      string
	}{
		"text to the journal": {
			true, text,
			`^<7>level=DEBUG msg=d component=x g.n=1\n<6>level=INFO msg=i component=x g.n=1\n<4>level=WARN msg=w component=x g.n=1\n<3>level=ERROR msg=e component=x g.n=1\n$`,
		},
		"JSON to the journal": {
			true, jsonLines,
			`^<7>{"level":"DEBUG","msg":"d","component":"x","g":{"n":1}}\n<6>{.*}\n<4>{.*}\n<3>{.*}\n$`,
		},
		"text to a terminal": {false, text, `^time=\S+ level=DEBUG msg=d component=x g.n=1\n(time=.*\n){3}$`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := slog.New(NewHandler(&out, c.toJournal, slog.HandlerOptions{Level: slog.LevelDebug}, c.make)).With("component", "x").WithGroup("g")
			log.Debug("d", "n", 1)
			log.Info("i", "n", 1)
			log.Warn("w", "n", 1)
			log.Error("e", "n", 1)
			if !regexp.MustCompile(c.want).Match(out.Bytes()) {
				t.Errorf("logged\n%s\nwant %s", &out, c.want)
			}
		})
	}
	var out bytes.Buffer
	log := slog.New(NewHandler(&out, true, slog.HandlerOptions{Level: slog.LevelWarn}, text))
	log.Info("i")
	if out.Len() > 0 {
		t.Errorf("below its level it logged %q", &out)
	}
}

// What another host has said in an error begins no command of a terminal.
func TestFailureIsPrintable(t *testing.T) {
	var out strings.Builder
	Failure(&out, "program", errors.New("Core said \x1b[2J\u009b\nsecond line"))
	if want := "program: Core said \ufffd[2J\ufffd\nsecond line\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}
