package certs

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nodeagent/internal/testfiles"
)

// messages is a log whose messages a test waits for.
type messages chan string

func (m messages) Write(line []byte) (int, error) {
	m <- string(line)
	return len(line), nil
}

func newLog() (*slog.Logger, messages) {
	m := make(messages, 100)
	options := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key != slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}}
	return slog.New(slog.NewTextHandler(m, options)), m
}

// await fails unless the next message has that level. A look follows the last event within
// 800 ms.
func (m messages) await(t *testing.T, level slog.Level) {
	t.Helper()
	select {
	case got := <-m:
		if want := "level=" + level.String() + "\n"; got != want {
			t.Fatalf("logged %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("nothing of level %s was logged within ten seconds", level)
	}
}

// A renewed certificate is served without a restart and without a handshake that looks for
// it. A broken one is logged once, and the one before it goes on. The files may be symbolic
// links, as certbot's are.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	archive := func(folder string) {
		t.Helper()
		if err := os.Mkdir(in(folder), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := create(in(folder+"/a.crt"), in(folder+"/a.key")); err != nil {
			t.Fatal(err)
		}
	}
	archive("one")
	archive("two")
	archive("three")
	testfiles.Link(t, "../one", in("live/now"))
	log, logged := newLog()
	files, err := Watch(in("live/now/a.crt"), in("live/now/a.key"), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() { files.Run(ctx); close(ended) }()
	pin := func() string {
		t.Helper()
		cert, err := files.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pinOf(*cert)
	}
	first := pin()

	testfiles.Link(t, "../two", in("live/now"))
	logged.await(t, slog.LevelInfo)
	second := pin()
	if second == first {
		t.Error("the renewed certificate is not served")
	}

	testfiles.Replace(t, in("two/a.crt"), []byte("garbage"))
	logged.await(t, slog.LevelError)
	if pin() != second {
		t.Error("a broken certificate took the place of the one before")
	}

	testfiles.Link(t, "../three", in("live/now"))
	logged.await(t, slog.LevelInfo)
	third := pin()
	if third == second {
		t.Error("the certificate after the broken one is not served")
	}

	cancel()
	<-ended
	if err := os.Remove(in("three/a.key")); err != nil {
		t.Fatal(err)
	}
	files.look()
	logged.await(t, slog.LevelError)
	files.look()
	if len(logged) != 0 {
		t.Error("a look at unchanged files logged something")
	}
	if pin() != third {
		t.Error("a missing key ended the certificate before")
	}
}

// A certificate is in trouble before it begins and once it has ended, and is warned of in its
// last week.
func TestTrouble(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
	if err := create(cert, key); err != nil {
		t.Fatal(err)
	}
	log, _ := newLog()
	files, err := Watch(cert, key, log)
	if err != nil {
		t.Fatal(err)
	}
	leaf := files.cert.Load().Leaf
	for name, c := range map[string]struct {
		now           time.Time
		trouble, soon bool
	}{
		"before it begins":   {leaf.NotBefore.Add(-time.Second), true, false},
		"while it is valid":  {leaf.NotBefore.Add(time.Second), false, false},
		"in its last week":   {leaf.NotAfter.Add(-6 * 24 * time.Hour), false, true},
		"after it has ended": {leaf.NotAfter.Add(time.Second), true, false},
	} {
		trouble, soon := files.Trouble(c.now)
		if (trouble != "") != c.trouble || (soon != "") != c.soon {
			t.Errorf("%s: trouble %q, soon %q", name, trouble, soon)
		}
	}
}
