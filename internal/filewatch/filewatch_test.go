package filewatch

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/internal/testfiles"
)

// The function is called once the folder is quiet, and within a second where it never is.
func TestBusyFolderIsScanned(t *testing.T) {
	for _, test := range []struct {
		name   string
		events int           // 100 ms apart
		after  time.Duration // from the first event to the first call
	}{
		{"quiet", 1, settle},
		{"a renewal of several files", 4, 300*time.Millisecond + settle},
		{"always busy", 100, settleAtMost},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := Unwatched()
				calls := make(chan time.Time, 100)
				w.Add("test", func() { calls <- time.Now() }, filepath.Join(dir, "file"))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go w.Run(ctx)
				first := time.Now()
				for range test.events {
					w.note(filepath.Join(dir, "other"))
					time.Sleep(100 * time.Millisecond)
				}
				if after := (<-calls).Sub(first); after != test.after {
					t.Errorf("the first call came after %s, want %s", after, test.after)
				}
				time.Sleep(2 * settleAtMost)
				if n, most := len(calls)+1, test.events/8+1; n > most {
					t.Errorf("%d calls for %d events, want %d at the most", n, test.events, most)
				}
			})
		})
	}
}

// startWatch watches the file until the test ends. At each call the channel gets the file's
// text, or "none" where the file does not exist.
func startWatch(t *testing.T, file string) <-chan string {
	t.Helper()
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 100)
	w.Add("test", func() {
		text, err := os.ReadFile(file)
		if err != nil {
			text = []byte("none")
		}
		seen <- string(text)
	}, file)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return seen
}

// callWithin is how long a test waits for a call. Operators are promised two seconds; a busy
// machine gets more.
const callWithin = 5 * time.Second

func awaitSeen(t *testing.T, seen <-chan string, what, want string) {
	t.Helper()
	deadline := time.After(callWithin)
	for {
		select {
		case text := <-seen:
			if text == want {
				return
			}
		case <-deadline:
			t.Fatalf("%s: %q was not seen within %s", what, want, callWithin)
		}
	}
}

// A change is seen in a real folder into which another program writes all the time.
func TestBusyFolderOnDisk(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	testfiles.Write(t, file, "old")
	seen := startWatch(t, file)
	testfiles.Write(t, file, "new")
	busy, deadline := time.NewTicker(50*time.Millisecond), time.After(callWithin)
	defer busy.Stop()
	for {
		select {
		case text := <-seen:
			if text == "new" {
				return
			}
		case <-busy.C:
			testfiles.Write(t, filepath.Join(dir, "log"), "something else")
		case <-deadline:
			t.Fatalf("no call within %s", callWithin)
		}
	}
}
