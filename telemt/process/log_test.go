package process

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Whatever telemt writes: its file is emptied, and no more of a line is kept than a bound.
func TestOutputIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	telemt, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer telemt.Close()
	file, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var lines []string
	o := &outputFile{file: file, line: func(line string) { lines = append(lines, line) }}
	for range 5 {
		if _, err := telemt.WriteString(strings.Repeat("x", maxOutput)); err != nil {
			t.Fatal(err)
		}
		o.read()
		if len(o.rest) > maxOutputLine {
			t.Fatalf("%d bytes of a line are kept", len(o.rest))
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() > maxOutput {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	if _, err := telemt.WriteString("\nlast\n"); err != nil {
		t.Fatal(err)
	}
	o.read()
	if len(lines) != 2 || len(lines[0]) != maxOutputLine || lines[1] != "last" {
		t.Errorf("%d lines, the last %.20q", len(lines), lines[len(lines)-1])
	}
}

// Warnings that strangers cause are not told one by one, and telemt's own last words always are.
func TestWarningsOfTelemtAreSummedUp(t *testing.T) {
	var out strings.Builder
	l := &lineLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	start := time.Now()
	for range 5000 {
		l.add("2026-01-01 WARN telemt: bad handshake", start)
	}
	l.add("[telemt] the end", start)
	if n := strings.Count(out.String(), "\n"); n != maxWarnings+1 {
		t.Errorf("%d lines for 5,000 warnings and the end", n)
	}
	l.sumUp(start.Add(warningTime - time.Second))
	l.sumUp(start.Add(warningTime))
	l.sumUp(start.Add(warningTime))
	if n := strings.Count(out.String(), "lines=4980"); n != 1 || strings.Count(out.String(), "\n") != maxWarnings+2 {
		t.Errorf("the sum is told %d times:\n%s", n, out.String())
	}
	l.add("2026-01-01 WARN telemt: another", start.Add(2*warningTime))
	if !strings.Contains(out.String(), "another") {
		t.Error("a warning of another minute is missing")
	}
}
