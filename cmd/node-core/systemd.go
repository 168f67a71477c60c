package main

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"nodeagent/cmd/node-core/internal/corestore"
)

const (
	// statusEvery is the time between two status texts for systemd where there is no watchdog.
	statusEvery = 10 * time.Second
	// seenWithin is how long ago a node was heard of at most that counts as seen: a node that has
	// nothing to say sends a heartbeat every 10 s.
	seenWithin = time.Minute
)

// notify sends a message to systemd (sd_notify(3)). It fails where there is no systemd, which is no
// error.
func notify(message string) { _, _ = daemon.SdNotify(false, message) }

// tellSystemd feeds systemd's watchdog and shows which nodes there are, until ctx ends. It asks the
// database each time. A database that hangs feeds no watchdog, and systemd starts Core again; an
// error is an answer, for a restart would not mend it.
func tellSystemd(ctx context.Context, nodes func(context.Context) ([]corestore.Node, error)) {
	every := statusEvery
	if within, err := daemon.SdWatchdogEnabled(false); err == nil && within > 0 {
		every = min(every, within/4)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		all, err := nodes(ctx)
		if ctx.Err() != nil {
			return
		}
		notify(daemon.SdNotifyWatchdog + "\nSTATUS=" + statusText(all, err, time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func statusText(nodes []corestore.Node, err error, now time.Time) string {
	if err != nil {
		return fmt.Sprintf("the database can't be read: %.200q", err.Error())
	}
	seen := 0
	for _, n := range nodes {
		if n.LastSeenAt != nil && now.Sub(*n.LastSeenAt) < seenWithin {
			seen++
		}
	}
	return fmt.Sprintf("%d nodes, %d of them seen within the last minute", len(nodes), seen)
}
