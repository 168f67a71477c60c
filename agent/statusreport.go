package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/internal/logkey"
	"nodeagent/telemt"
)

const (
	// statusPoll is how often the status for Core is made and compared with the one that Core
	// has.
	statusPoll = 5 * time.Second
	// statusPause is the shortest time between two reports, and statusRetry the time after one
	// that failed.
	statusPause = 30 * time.Second
	statusRetry = time.Minute
	// A Core without the route keeps its id when it is upgraded. So it is asked again once a
	// day, and after heartbeats have failed, which is how a restart of Core looks from here. A
	// Core that fails often is asked once an hour.
	statusAskAgain   = 24 * time.Hour
	statusAskRestart = time.Hour
	// The bounds of a report. What is beyond them is counted in it.
	maxStatusInbounds = 500
	maxStatusWarnings = 100
	maxStatusText     = 500 // bytes
)

// statusReporter tells Core how the node is, where Core has the route for it. The goroutine of
// statusLoop owns it.
type statusReporter struct {
	since   map[string]wire.InboundHealth // by tag: the last health, for its time
	core    string                        // the Core to which sent and missing belong
	sent    []byte                        // what that Core has; nil for nothing
	next    time.Time                     // no report before it
	missing time.Time                     // of the first answer that the route is missing; zero for none
	lacked  time.Time                     // of the last answer of a Core that lacks the route; zero where it may have it
}

// statusLoop reports until ctx ends.
func (a *Agent) statusLoop(ctx context.Context) {
	r := &statusReporter{since: map[string]wire.InboundHealth{}}
	tick := time.NewTicker(statusPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			a.reportStatus(ctx, r, now)
		}
	}
}

// reportStatus sends the status where Core does not have it. It is no report of a failure: a
// status that Core does not take is tried again, or not, and nothing else happens.
func (a *Agent) reportStatus(ctx context.Context, r *statusReporter, now time.Time) {
	if core := a.coreID(); core != r.core {
		*r = statusReporter{since: r.since, core: core}
	}
	lastGood, rejected := a.link.State()
	if _, away := a.troubles.has(troubleHeartbeat); r.rests(now, a.link.LastFailed()) || now.Before(r.next) || lastGood.IsZero() || rejected != nil || away {
		return
	}
	body, err := json.Marshal(a.statusForCore(r, now))
	if err != nil || bytes.Equal(body, r.sent) {
		return
	}
	err = a.core.Post(ctx, wire.PathStatus, rand.Text(), body)
	if ctx.Err() != nil {
		return
	}
	r.next = now.Add(a.jitter(statusPause))
	switch {
	case err == nil:
		r.sent, r.missing, r.lacked = body, time.Time{}, time.Time{}
		return
	case coreclient.ClassOf(err) != coreclient.Missing:
	case r.missing.IsZero(): // a proxy may have answered in Core's place
		r.missing = now
	case lastGood.After(r.missing): // Core was there meanwhile
		r.lacked = now
	}
	a.log.Debug("report the status", logkey.Error, err)
	r.next = now.Add(max(a.jitter(statusRetry), coreclient.RetryAfter(err)))
}

// rests reports whether Core lacks the route and is not asked again yet. failed is when a
// heartbeat failed last.
func (r *statusReporter) rests(now, failed time.Time) bool {
	pause := statusAskAgain
	if failed.After(r.lacked) {
		pause = statusAskRestart
	}
	return !r.lacked.IsZero() && now.Before(r.lacked.Add(pause))
}

// statusForCore returns how the node is now.
func (a *Agent) statusForCore(r *statusReporter, now time.Time) wire.StatusRequest {
	x, m := a.xray.Status(), a.mtproto.Status()
	var report wire.StatusRequest
	report.Versions.Xray = x.Version
	for _, in := range m.Inbounds {
		report.Versions.Telemt = max(report.Versions.Telemt, in.Version)
	}
	refused := a.refusedInbounds()
	var all []wire.InboundHealth
	add := func(tag, protocol, state, reason string) {
		if why, is := refused[tag]; is {
			delete(refused, tag)
			reason = "it runs in an earlier form: " + why
			if state == wire.HealthFailed {
				reason = why
			} else {
				state = wire.HealthDegraded
			}
		}
		all = append(all, wire.InboundHealth{Tag: tag, Protocol: wire.VpnProtocol(protocol), State: state, Reason: reason})
	}
	for _, in := range x.Inbounds {
		state, reason := wire.HealthReady, in.Degraded
		switch {
		case in.State != "running" || x.State == "restarting":
			state, reason = wire.HealthFailed, in.Error
		case reason != "":
			state = wire.HealthDegraded
		}
		add(in.Tag, in.Protocol, state, reason)
	}
	for _, in := range m.Inbounds {
		state, reason := healthOf(in)
		add(in.Tag, string(wire.ProtocolMTProto), state, reason)
	}
	for tag, why := range refused { // those that never ran
		all = append(all, wire.InboundHealth{Tag: tag, State: wire.HealthFailed, Reason: why})
	}
	slices.SortFunc(all, func(a, b wire.InboundHealth) int { return strings.Compare(a.Tag, b.Tag) })
	report.MoreInbounds = max(0, len(all)-maxStatusInbounds)
	report.Inbounds = r.dated(all[:len(all)-report.MoreInbounds], now)
	warnings := slices.Concat(x.Warnings, m.Warnings)
	report.MoreWarnings = max(0, len(warnings)-maxStatusWarnings)
	for _, text := range warnings[:len(warnings)-report.MoreWarnings] {
		report.Warnings = append(report.Warnings, short(text))
	}
	return report
}

// refusedInbounds returns why the inbounds do not run as Core wants them, by tag.
func (a *Agent) refusedInbounds() map[string]string {
	reasons := map[string]string{}
	if refused := a.sync.refusedConfig(); refused != nil {
		for _, part := range refused.parts {
			if part.Kind == fault.Inbound || part.Kind == fault.MTProto {
				reasons[part.Tag] = part.Reason
			}
		}
	}
	return reasons
}

// healthOf returns the health of an MTProto inbound.
func healthOf(in telemt.InboundStatus) (state, reason string) {
	switch in.State {
	case telemt.StateReady:
		return wire.HealthReady, ""
	case telemt.StateStarting:
		return wire.HealthDegraded, "telemt is starting"
	case telemt.StateDegraded:
		return wire.HealthDegraded, in.Error
	case telemt.StateFailed:
	}
	return wire.HealthFailed, in.Error
}

// dated sets since when each inbound has its health.
func (r *statusReporter) dated(all []wire.InboundHealth, now time.Time) []wire.InboundHealth {
	known := map[string]wire.InboundHealth{}
	for i := range all {
		all[i].Reason = short(all[i].Reason)
		all[i].Since = now.UTC().Truncate(time.Second)
		if before, is := r.since[all[i].Tag]; is && before.State == all[i].State {
			all[i].Since = before.Since
		}
		known[all[i].Tag] = all[i]
	}
	r.since = known
	return all
}

// short bounds a text.
func short(text string) string {
	if len(text) <= maxStatusText {
		return text
	}
	return strings.ToValidUTF8(text[:maxStatusText], "") + "…"
}
