package descriptors

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// With all descriptors in use Exhausted says so, and it does not once one is free.
func TestExhausted(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &before) //nolint:errcheck // the process ends
	var files []*os.File
	for {
		file, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		files = append(files, file)
	}
	if text := Exhausted(); !strings.Contains(text, "its 64 file descriptors") {
		t.Errorf("with none left it says %q", text)
	}
	for _, file := range files {
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if text := Exhausted(); text != "" {
		t.Errorf("with descriptors left it says %q", text)
	}
}

func TestExplain(t *testing.T) {
	for text, err := range map[string]error{
		"process": fmt.Errorf("accept: %w", unix.EMFILE),
		"host":    fmt.Errorf("open: %w", unix.ENFILE),
	} {
		if got := Explain(err); !strings.Contains(got, text) {
			t.Errorf("%v is explained as %q, want %q in it", err, got, text)
		}
	}
	if got := Explain(errors.New("another")) + Explain(nil); got != "" {
		t.Errorf("other errors are explained as %q", got)
	}
}
