package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nodeagent/agent"
	"nodeagent/internal/scripttest"
)

// scriptSystemds has what the daemon of each script said, a *heard by its *testscript.TestScript.
var scriptSystemds sync.Map

type heard struct {
	mu       sync.Mutex
	messages []string
}

func (h *heard) add(message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages = append(h.messages, message)
}

// take removes all messages up to the first one that matches.
func (h *heard) take(words *regexp.Regexp) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, message := range h.messages {
		if words.MatchString(message) {
			h.messages = h.messages[i+1:]
			return true
		}
	}
	return false
}

// listen makes a socket as systemd has it, and returns what comes there.
func listen(path string) (*heard, *net.UnixConn, error) {
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, nil, err
	}
	h := &heard{}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := socket.Read(buffer)
			if err != nil {
				return
			}
			h.add(string(buffer[:n]))
		}
	}()
	return h, socket, nil
}

func listenAsSystemd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: systemd SECONDS")
	}
	seconds, err := strconv.Atoi(args[0])
	ts.Check(err)
	path := ts.MkAbs("notify.sock")
	h, socket, err := listen(path)
	ts.Check(err)
	ts.Defer(func() { _ = socket.Close() })
	ts.Setenv("NOTIFY_SOCKET", path)
	ts.Setenv("WATCHDOG_USEC", strconv.Itoa(seconds*1_000_000))
	scriptSystemds.Store(ts, h)
}

func systemdHears(ts *testscript.TestScript, neg bool, args []string) {
	h, is := scriptSystemds.Load(ts)
	if neg || len(args) != 1 || !is {
		ts.Fatalf("usage: systemd-hears REGEXP, after systemd")
	}
	words, err := regexp.Compile(args[0])
	ts.Check(err)
	scripttest.Await(ts, "the daemon says "+args[0], func() bool { return h.(*heard).take(words) })
}

// The watchdog is fed while no loop hangs, and again once none does.
func TestWatchdogIsFedUnlessSomethingHangs(t *testing.T) {
	path := t.TempDir() + "/notify.sock"
	h, socket, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "40000")
	var hangs atomic.Bool
	var asked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		feedWatchdog(ctx, func() string {
			asked.Add(1)
			if hangs.Load() {
				return "a heartbeat"
			}
			return ""
		}, slog.New(slog.DiscardHandler))
	}()
	await := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not within 10 s", what)
			}
		}
	}
	fed := func() bool { return h.take(regexp.MustCompile(`^WATCHDOG=1$`)) }
	await("fed", fed)
	await("fed again", fed)
	hangs.Store(true)
	from := asked.Load()
	await("asked", func() bool { return asked.Load() > from+1 })
	for fed() { // what was sent before
	}
	from = asked.Load()
	await("asked", func() bool { return asked.Load() > from+3 })
	if fed() {
		t.Error("a daemon that hangs feeds the watchdog")
	}
	hangs.Store(false)
	await("fed once nothing hangs", fed)
	cancel()
	<-done
}

func TestStatusText(t *testing.T) {
	trouble := []agent.Problem{{Kind: agent.CoreUnreachable, Message: "Core does not answer;\nREADY=1"}, {Kind: agent.Attention, Message: "x"}}
	for _, c := range []struct {
		status agent.Status
		err    error
		want   string
	}{
		{agent.Status{}, nil, "no configuration yet, 0 clients online, all is well"},
		{agent.Status{Revision: agent.Revisions{Running: new(int64(7))}, Online: 3}, nil, "revision 7, 3 clients online, all is well"},
		{agent.Status{Problems: trouble[:1]}, nil, "no configuration yet, 0 clients online; Core does not answer; READY=1"},
		{agent.Status{Problems: trouble}, nil, "no configuration yet, 0 clients online; 2 problems, the worst: Core does not answer; READY=1"},
		{agent.Status{}, errors.New("the disk\nis gone"), "the status can't be read: the disk is gone"},
	} {
		if got := statusText(c.status, c.err); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if got := statusLine(strings.Repeat("ü", 400)); len(got) > maxStatusText || !strings.HasSuffix(got, "ü…") {
		t.Errorf("a long text becomes %q", got)
	}
}
