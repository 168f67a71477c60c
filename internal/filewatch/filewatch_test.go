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

// Files are looked at once their folder is quiet, and before a second is over where it never is.
func TestBusyFolderIsLookedAt(t *testing.T) {
	for _, test := range []struct {
		name   string
		events int           // 100 ms apart
		after  time.Duration // from the first event to the first look
	}{
		{"quiet", 1, watchSettle},
		{"a renewal of several files", 4, 300*time.Millisecond + watchSettle},
		{"always busy", 100, watchAtMost},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := Unwatched()
				looks := make(chan time.Time, 100)
				w.Add("test", func() { looks <- time.Now() }, filepath.Join(dir, "file"))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go w.Run(ctx)
				first := time.Now()
				for range test.events {
					w.note(filepath.Join(dir, "other"))
					time.Sleep(100 * time.Millisecond)
				}
				if after := (<-looks).Sub(first); after != test.after {
					t.Errorf("the first look came after %s, want %s", after, test.after)
				}
				time.Sleep(2 * watchAtMost)
				if n, most := len(looks)+1, test.events/8+1; n > most {
					t.Errorf("%d looks for %d events, want %d at the most", n, test.events, most)
				}
			})
		})
	}
}

// startWatch returns a channel that gets what the file has at each look, "none" where
// there is none.
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

// lookWithin is how long a look may take here, where the promise is two seconds.
const lookWithin = 5 * time.Second

func awaitSeen(t *testing.T, seen <-chan string, what, want string) {
	t.Helper()
	deadline := time.After(lookWithin)
	for {
		select {
		case text := <-seen:
			if text == want {
				return
			}
		case <-deadline:
			t.Fatalf("%s: %q was not seen within %s", what, want, lookWithin)
		}
	}
}

// The same with a folder in which something else writes.
func TestBusyFolderOnDisk(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	testfiles.Write(t, file, "old")
	seen := startWatch(t, file)
	testfiles.Write(t, file, "new")
	busy, deadline := time.NewTicker(50*time.Millisecond), time.After(lookWithin)
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
			t.Fatalf("no look within %s", lookWithin)
		}
	}
}
