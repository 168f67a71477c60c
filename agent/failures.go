package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/internal/logkey"
	"nodeagent/store"
	"nodeagent/telemt/service"
	"nodeagent/xray"
)

// noticeLoop handles what the engines report by themselves, until ctx ends.
func (a *Agent) noticeLoop(ctx context.Context) {
	beat := a.pulse.Begin("", 0)
	defer beat.End()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.inbox.wakeNotices:
			beat.Do("the handling of what the engines report", requestLimit)
			a.handleNotices()
			beat.Do("", 0)
		}
	}
}

// handleNotices handles the notices that are in the inbox, in the order in which they were
// reported. Any goroutine may call it. apply does, to report a crash before its own outcome.
func (a *Agent) handleNotices() {
	a.handling.Lock()
	defer a.handling.Unlock()
	for _, n := range a.inbox.takeNotices() {
		switch {
		case n.xray != nil:
			a.xrayFailed(*n.xray, n.at)
		case n.mtproto != nil:
			a.mtprotoFailed(*n.mtproto)
		default:
			a.reporter.Noted(n.noted)
		}
	}
}

func (a *Agent) xrayFailed(f xray.Failure, at time.Time) {
	code := wire.CodeConfigApplyFailed
	switch {
	case f.Crash:
		code = wire.CodeXrayCrashed
	case f.Code == fault.PortInUse, f.Code == wire.CodeDescriptors:
		code = f.Code
	}
	details := a.failureDetails(a.sync.runningRevision(), f.Tag, f.Port)
	if f.Notice {
		details["notice"] = true
	}
	a.reporter.Failed(code, f.Message, details)
	if f.Crash && f.Suspect && !f.Changing {
		a.crashes.record(at)
	}
}

// mtprotoFailed reports the failure of an MTProto inbound. An inbound that waits for a telemt
// and is among the refused parts of a document has been reported there.
func (a *Agent) mtprotoFailed(f service.Failure) {
	if refused := a.sync.refusedConfig(); f.Code == service.FailureMissing && refused != nil &&
		slices.ContainsFunc(refused.parts, func(p RefusedPart) bool { return p.Kind == fault.MTProto && p.Tag == f.Tag }) {
		return
	}
	a.reporter.Failed(mtprotoCode(f.Code), f.Message, a.failureDetails(a.sync.runningRevision(), f.Tag, f.Port))
}

// batchRefused reports a batch that was set aside.
func (a *Agent) batchRefused(batch store.Batch, reason error) {
	a.reporter.Failed(wire.CodeStoreFailed, fmt.Sprintf("Core refused a batch for good; it is set aside (%d rows)", batch.Rows),
		map[string]any{"kind": string(batch.Kind), "error": reason.Error()})
}

// StatusUnavailable reports to Core that the daemon has no socket for `node-agent status`,
// where an operator of the node would look otherwise.
func (a *Agent) StatusUnavailable(err error) {
	a.reporter.Failed(wire.CodeNoStatus, fmt.Sprintf("clients are served, and 'node-agent status' finds no daemon: %v", err), nil)
}

// UpgradeFailed notes and reports that another version of the program can't take over from this one,
// which goes on. Nil says that none waits any more.
func (a *Agent) UpgradeFailed(err error) {
	if a.troubles.note(troubleUpgrade, err); err != nil {
		a.reporter.Failed(wire.CodeUpgradeFailed, err.Error(), nil)
	}
}

// maxReportedParts bounds the refused parts in one report.
const maxReportedParts = 100

// appliedInPart reports which parts of a configuration are refused; the rest runs.
func (a *Agent) appliedInPart(revision int64, refused []*fault.Fault) {
	type reported struct {
		Kind   fault.Kind `json:"kind"`
		Tag    string     `json:"tag,omitempty"`
		Client string     `json:"client,omitempty"`
		Reason string     `json:"reason"`
		Retry  bool       `json:"retry"`
	}
	parts := make([]reported, 0, min(len(refused), maxReportedParts))
	for _, f := range refused[:cap(parts)] {
		parts = append(parts, reported{f.Kind, f.Tag, f.Client, f.Message, f.Retry})
		a.log.Error("a part of the configuration is refused; the rest runs", logkey.Revision, revision, logkey.Code, f.Code, logkey.Tag, f.Tag, logkey.Error, f.Message)
	}
	first := refused[0]
	details := a.failureDetails(&revision, first.Tag, first.Port)
	details["parts"] = parts
	if len(refused) > len(parts) {
		details["moreParts"] = len(refused) - len(parts)
	}
	a.reporter.Failed(first.Code, fmt.Sprintf("revision %d runs without %d of its parts: %v", revision, len(refused), &partialError{refused}), details)
}

// applyFailed logs why a configuration was not applied, and reports it.
func (a *Agent) applyFailed(revision int64, err error) {
	failure := fault.Of(err)
	code, tag, port := failure.Code, failure.Tag, failure.Port
	a.log.Error("configuration refused; the previous one is still served", logkey.Revision, revision, logkey.Code, code, logkey.Tag, tag, logkey.Error, err)
	a.reporter.Failed(code, fmt.Sprintf("revision %d: %v", revision, err), a.failureDetails(&revision, tag, port))
}

func mtprotoCode(code service.FailureCode) string {
	switch code {
	case service.FailureMissing:
		return wire.CodeTelemtMissing
	case service.FailureCrash:
		return wire.CodeTelemtCrashed
	case service.FailurePortInUse:
		return wire.CodePortInUse
	case service.FailureApply:
	}
	return wire.CodeTelemtApplyFailed
}

// failureDetails is what Core is told of a failure beside the message: where it is, and the
// warnings about the running configuration. revision is nil for none, tag empty, port 0.
func (a *Agent) failureDetails(revision *int64, tag string, port uint16) map[string]any {
	details := map[string]any{}
	if revision != nil {
		details["revision"] = *revision
	}
	if tag != "" {
		details["tag"] = tag
	}
	if port != 0 {
		details["port"] = port
	}
	if warnings := a.xray.Status().Warnings; len(warnings) > 0 {
		details["warnings"] = warnings
	}
	return details
}
