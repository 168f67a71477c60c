package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"nodeagent/agent"
	"nodeagent/internal/logkey"
	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/xray"
)

// running is what a reload of the configuration changes.
type running struct {
	settings settings // that are in force
	level    *slog.LevelVar
	agent    *agent.Agent
	xray     *xray.Engine
	mtproto  *telemt.Engine
	log      *slog.Logger
	leave    func(cause error) // ends the daemon

	probation *probation // of this version; nil for none
	noWayBack error      // why this version goes on although another one should; nil for none
}

// reloadOnHangup reads the configuration again at each SIGHUP, until ctx ends. `systemctl reload`
// sends it. Where another version of the program is on the disk, the daemon gives way to it. No
// client is cut.
func (r *running) reloadOnHangup(ctx context.Context, hangups <-chan os.Signal, load func() (settings, error), db *store.Store) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		notify(reloadingMessage())
		if next, err := load(); err != nil {
			r.log.Error("the configuration can't be used, and the one before goes on", logkey.Error, err)
		} else {
			r.reload(next)
			if r.upgrade(ctx, db) {
				return // the next version tells that it is ready
			}
		}
		notify(daemon.SdNotifyReady)
	}
}

// reloadingMessage is RELOADING=1 with the time, which newer versions of systemd want besides
// (sd_notify(3)).
func reloadingMessage() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return daemon.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/int64(time.Microsecond))
}

// hangups returns the channel of SIGHUP. A signal that comes before anybody reads waits there: it
// must not end the daemon. A reload waits there too where the program has executed itself for one.
func hangups() (signals <-chan os.Signal, stop func()) {
	channel := make(chan os.Signal, 1)
	if os.Getenv(reloadVariable) != "" {
		channel <- syscall.SIGHUP
	}
	_ = os.Unsetenv(reloadVariable) // it is for this start alone
	signal.Notify(channel, syscall.SIGHUP)
	return channel, func() { signal.Stop(channel) }
}

// reload brings the settings into force that can be changed while the daemon runs, and names the
// others in the log. Nothing changes where one of the settings makes no sense.
func (r *running) reload(next settings) {
	level, err := parseLevel(next.LogLevel)
	if err == nil && next.Telemt.Binary == "" {
		err = fmt.Errorf("telemt.binary is empty; want a path or a name")
	}
	if err == nil {
		err = r.agent.SetIntervals(next.agentConfig(""))
	}
	if err != nil {
		r.log.Error("the configuration can't be used, and the one before goes on", logkey.Error, err)
		return
	}
	r.level.Set(level)
	r.xray.SetTimeouts(next.Xray.DrainTimeout.Duration, next.Xray.OrphanTimeout.Duration)
	r.mtproto.Tune(next.telemtConfig(""))
	if names := restartFor(r.settings, next); len(names) > 0 {
		r.log.Warn("the configuration was read again; some of what changed needs 'systemctl restart node-agent'", logkey.Settings, strings.Join(names, ", "))
	} else {
		r.log.Info("the configuration was read again")
	}
	// A setting that needs a restart stays as it is, and is reported again at the next reload.
	fixed := r.settings
	r.settings = next
	r.settings.StateDir, r.settings.RuntimeDir, r.settings.LogFormat = fixed.StateDir, fixed.RuntimeDir, fixed.LogFormat
	r.settings.Metrics, r.settings.Xray.AssetDir, r.settings.Xray.IPv6Prefix = fixed.Metrics, fixed.Xray.AssetDir, fixed.Xray.IPv6Prefix
	r.settings.Xray.ClientNetworks = fixed.Xray.ClientNetworks
}

// restartFor names the settings that differ and that a running daemon can't change.
func restartFor(now, next settings) []string {
	var names []string
	for _, s := range []struct {
		name    string
		differs bool
	}{
		{"state_dir", now.StateDir != next.StateDir},
		{"runtime_dir", now.RuntimeDir != next.RuntimeDir},
		{"log_format", now.LogFormat != next.LogFormat},
		{"metrics.listen", now.Metrics != next.Metrics},
		{"xray.asset_dir", now.Xray.AssetDir != next.Xray.AssetDir},
		{"xray.client_networks", !slices.Equal(now.Xray.ClientNetworks, next.Xray.ClientNetworks)},
		{"xray.ipv6_prefix", now.Xray.IPv6Prefix != next.Xray.IPv6Prefix},
	} {
		if s.differs {
			names = append(names, s.name)
		}
	}
	return names
}
