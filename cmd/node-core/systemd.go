package main

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"nodeagent/cmd/node-core/internal/corestore"
)

// statusEvery is the time between two status texts for systemd where there is no watchdog.
const statusEvery = 10 * time.Second

// notify sends a message to systemd (sd_notify(3)). It fails where there is no systemd, which is no
// error.
func notify(message string) { _, _ = daemon.SdNotify(false, message) }

// tellSystemd feeds systemd's watchdog and shows how many nodes there are, until ctx ends. It asks the
// database each time. A database that hangs feeds no watchdog, and systemd starts Core again; an
// error is an answer, for a restart would not mend it.
func tellSystemd(ctx context.Context, count func(ctx context.Context, since time.Time) (all, seen int64, err error)) {
	every := statusEvery
	if within, err := daemon.SdWatchdogEnabled(false); err == nil && within > 0 {
		every = min(every, within/4)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		all, seen, err := count(ctx, time.Now().Add(-corestore.OfflineAfter))
		if ctx.Err() != nil {
			return
		}
		notify(daemon.SdNotifyWatchdog + "\nSTATUS=" + statusText(all, seen, err))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func statusText(nodes, online int64, err error) string {
	if err != nil {
		return fmt.Sprintf("the database can't be read: %.200q", err.Error())
	}
	return fmt.Sprintf("%d nodes, %d of them online", nodes, online)
}
