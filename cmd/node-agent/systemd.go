package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"nodeagent/agent"
	"nodeagent/internal/logkey"
)

const (
	// statusEvery is the time between two status texts for systemd.
	statusEvery = 5 * time.Second
	// maxStatusText bounds the status text, in bytes: `systemctl status` shows it in one line.
	maxStatusText = 300
)

// notify sends a message to systemd (sd_notify(3)). It fails where there is no systemd, which is no
// error.
func notify(message string) { _, _ = daemon.SdNotify(false, message) }

// feedWatchdog tells systemd that the daemon lives, until ctx ends: at first at once, and then
// while no main loop hangs. Where one does, systemd ends the daemon, with the stacks of all
// goroutines in the log, and starts it again.
func feedWatchdog(ctx context.Context, stuck func() string, log *slog.Logger) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("there is no watchdog: systemd's WATCHDOG_USEC or WATCHDOG_PID is wrong", logkey.Error, err)
	}
	if err != nil || within == 0 {
		return
	}
	tick := time.NewTicker(within / 4)
	defer tick.Stop()
	told := false
	for {
		if what := stuck(); what == "" {
			notify(daemon.SdNotifyWatchdog)
			told = false
		} else if !told {
			log.Error("the daemon hangs; systemd's watchdog will end it and start it again", logkey.Loop, what)
			told = true
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// showStatus keeps systemd's status text up to date, until ctx ends.
func showStatus(ctx context.Context, status func() (agent.Status, error)) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	shown := ""
	for {
		if text := statusText(status()); text != shown {
			notify("STATUS=" + text)
			shown = text
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// statusText says in one line which revision runs, for how many clients, and what is wrong.
func statusText(s agent.Status, err error) string {
	if err != nil {
		return statusLine("the status can't be read: " + err.Error())
	}
	text := "no configuration yet"
	if r := s.Revision.Running; r != nil {
		text = fmt.Sprintf("revision %d", *r)
	}
	text += fmt.Sprintf(", %d clients online", s.Online)
	switch n := len(s.Problems); n {
	case 0:
		text += ", all is well"
	case 1:
		text += "; " + problemText(s.Problems[0])
	default:
		text += fmt.Sprintf("; %d problems, the worst: %s", n, problemText(s.Problems[0]))
	}
	return statusLine(text)
}

// statusLine makes of text what a line of a message to systemd can have.
func statusLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxStatusText {
		text = strings.ToValidUTF8(text[:maxStatusText-len("…")], "") + "…"
	}
	return text
}
