package agent

import (
	"fmt"
	"time"

	"nodeagent/agent/delivery"
	"nodeagent/coreclient/wire"
	"nodeagent/telemt"
)

// ProblemKind says what a Problem means for clients and for the operator.
type ProblemKind string

// The kinds of problems, the worst first.
const (
	NotServed       ProblemKind = "not_served"       // an inbound, or all of them, serves nobody
	ConfigRefused   ProblemKind = "config_refused"   // the configuration before goes on
	KeyRejected     ProblemKind = "key_rejected"     // Core accepts nothing of this node
	CoreUnreachable ProblemKind = "core_unreachable" // what is counted waits in the state folder
	Attention       ProblemKind = "attention"        // clients are served, and a person is needed
)

// ProblemKinds are all kinds, the worst first.
var ProblemKinds = []ProblemKind{NotServed, ConfigRefused, KeyRejected, CoreUnreachable, Attention}

// Problem is something that is wrong now.
type Problem struct {
	Kind    ProblemKind `json:"kind"`
	Message string      `json:"message"`        // what it means, and what to do
	Since   time.Time   `json:"since,omitzero"` // UTC; zero where that is not known
}

// problems returns what is wrong, the worst first. s has everything else.
func (a *Agent) problems(s Status) []Problem {
	all := []Problem{} // not nil: JSON shows [] then
	add := func(kind ProblemKind, since time.Time, format string, args ...any) {
		if !since.IsZero() {
			since = since.UTC()
		}
		all = append(all, Problem{kind, fmt.Sprintf(format, args...), since})
	}
	a.addNotServed(s, add)
	if refused := a.sync.refusedConfig(); refused != nil {
		addRefused(refused, add)
	} else if lost, lasts := a.troubles.has(troubleRestore); lasts && s.Revision.Running == nil {
		add(NotServed, lost.since, "the last good configuration can't be read, and Core has sent no other one yet: %s", lost.message)
	}
	away, isAway := a.troubles.has(troubleHeartbeat)
	noConfig, lacksConfig := a.troubles.has(troubleFetch)
	machine, isOther := a.troubles.has(troubleMachine)
	switch key, rejected := a.troubles.has(troubleKey); {
	case isOther:
		add(KeyRejected, machine.since, "clients are served on, and what is counted waits: %s", machine.message)
	case rejected:
		add(KeyRejected, key.since, "Core does not accept this node's key; clients are served on, and nothing is delivered; register again, or have the key allowed in Core: %s", key.message)
	case isAway:
		add(CoreUnreachable, away.since, "Core does not answer; clients are served on, and what is counted waits: %s", away.message)
	case s.Core.LastHeartbeat.IsZero():
		add(CoreUnreachable, s.Core.AskedAt, "Core has not answered yet")
	case lacksConfig:
		add(CoreUnreachable, noConfig.since, "Core answers heartbeats and gives no configuration: %s", noConfig.message)
	}
	a.addAttention(s, add)
	return all
}

type addProblem = func(kind ProblemKind, since time.Time, format string, args ...any)

func (a *Agent) addNotServed(s Status, add addProblem) {
	if x := s.Engines.Xray; x.State == "restarting" {
		add(NotServed, time.Time{}, "the xray worker does not run, and is started again: %s", x.LastRestart)
	} else {
		for _, in := range x.Inbounds {
			if in.State != "running" {
				add(NotServed, time.Time{}, "inbound %q serves nobody, and is tried again%s", in.Tag, colon(in.Error))
			}
		}
	}
	for _, in := range s.Engines.MTProto.Inbounds {
		if in.State == telemt.StateFailed {
			add(NotServed, time.Time{}, "MTProto inbound %q serves nobody, and is tried again%s", in.Tag, colon(in.Error))
		}
	}
}

// maxShownParts bounds how many refused parts are problems of their own.
const maxShownParts = 20

func addRefused(refused *refusal, add addProblem) {
	next := map[bool]string{false: "the next revision is awaited", true: "it is tried again"}
	if len(refused.parts) == 0 {
		add(ConfigRefused, refused.since, "Core's configuration is refused, the one before goes on, and %s: %s", next[!refused.final], refused.reason)
	}
	for i, part := range refused.parts {
		if i == maxShownParts {
			add(ConfigRefused, part.Since, "%d more parts of Core's configuration are refused", len(refused.parts)-i)
			return
		}
		name := string(part.Kind)
		if part.Tag != "" {
			name += fmt.Sprintf(" %q", part.Tag)
		}
		add(ConfigRefused, part.Since, "%s is refused, and keeps its last good form or stays out; %s: %s", name, next[part.Retry && !refused.final], part.Reason)
	}
}

func (a *Agent) addAttention(s Status, add addProblem) {
	if failed, lasts := a.troubles.has(troubleUpgrade); lasts {
		add(Attention, failed.since, "%s", failed.message)
	}
	if failed := s.Engines.Xray.UpgradeFailed; failed != "" {
		add(Attention, time.Time{}, "%s", failed)
	}
	if e := s.Engines.Xray.Exhausted; e != nil {
		add(Attention, e.Since, "%s", e.Message)
	}
	for _, in := range s.Engines.MTProto.Inbounds {
		if in.State == telemt.StateDegraded {
			add(Attention, time.Time{}, "MTProto inbound %q reaches no centre of Telegram%s", in.Tag, colon(in.Error))
		}
	}
	if full, lasts := a.troubles.has(troubleAccount); lasts {
		add(Attention, full.since, "traffic is counted, and can't be stored; mend the file system of the state folder: %s", full.message)
	}
	if clock, lasts := a.troubles.has(troubleClock); lasts {
		add(Attention, clock.since, "%s", clock.message)
	}
	if bad, lasts := a.troubles.has(troubleDelta); lasts {
		add(Attention, bad.since, "the last change that Core sent of the configuration could not be used, and the whole of it was fetched instead: %s", bad.message)
	}
	if damage := damageProblem(s.Outbox); damage != "" {
		add(Attention, time.Time{}, "%s", damage)
	}
	if n := s.Outbox.Aside; n > 0 {
		add(Attention, time.Time{}, "%d batches that Core refused for good are set aside; see 'node-agent outbox list'", n)
	}
}

func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// over tells whether the cause of the last error is gone. It is false where nothing tells.
func (a *Agent) over(e delivery.LastError, s Status) bool {
	lasts := func(what trouble) bool {
		_, lasts := a.troubles.has(what)
		return lasts
	}
	tag, _ := e.Details["tag"].(string)
	switch _, isNotice := e.Details["notice"]; e.Code {
	case delivery.CodeUnreachable:
		return !lasts(troubleHeartbeat) && !lasts(troubleFetch) && !lasts(troubleKey)
	case wire.CodeClockSkew:
		return !lasts(troubleClock)
	case wire.CodeStoreFailed:
		if _, isBatch := e.Details["kind"]; isBatch {
			return s.Outbox.Aside == 0
		}
		if _, isDamage := e.Details["damaged"]; isDamage {
			return s.Outbox.Damaged == 0
		}
		return !lasts(troubleAccount) && (!lasts(troubleRestore) || s.Revision.Running != nil)
	case wire.CodeDescriptors:
		return s.Engines.Xray.Exhausted == nil
	case wire.CodeXrayCrashed:
		x := s.Engines.Xray
		// The worker after it may have started before the error was noted.
		again := x.StartedAt.After(e.At) || time.Since(x.StartedAt) > crashWindow
		return x.State == "running" && again && a.sync.refusedConfig() == nil
	case wire.CodeTelemtCrashed, wire.CodeTelemtMissing:
		return serves(s, tag)
	case wire.CodeConfigInvalid, wire.CodeConfigApplyFailed, wire.CodePortInUse, wire.CodeTelemtApplyFailed:
		return !isNotice && a.sync.refusedConfig() == nil && serves(s, tag)
	}
	return false
}

// serves tells whether no inbound of that tag is out of service. An empty tag stands for all
// inbounds.
func serves(s Status, tag string) bool {
	for _, in := range s.Engines.Xray.Inbounds {
		if (tag == "" || in.Tag == tag) && in.State != "running" {
			return false
		}
	}
	for _, in := range s.Engines.MTProto.Inbounds {
		if (tag == "" || in.Tag == tag) && (in.State == telemt.StateFailed || in.State == telemt.StateStarting) {
			return false
		}
	}
	return s.Engines.Xray.State != "restarting"
}
