package telemt

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/telemt/api"
	"nodeagent/telemt/service"
)

// reload makes telemt load its whole file as a new generation, while the sessions of the
// old generation go on for DrainTimeout. If no new generation comes up, telemt is restarted. A
// release without reloads takes the clients at once, and the rest when it is restarted: as soon
// as no session is open, and after UpgradeWithin in any case.
func (k *keeper) reload(ctx context.Context, to service.Desired) error {
	if !k.process.Release.CanReload() && k.isCalm(ctx) {
		return k.restart(ctx, to)
	}
	if !reflect.DeepEqual(to.Configuration(service.NodeSettings{})["access"], k.running.Configuration(service.NodeSettings{})["access"]) {
		// First, because the sessions of removed users would otherwise go on in the old
		// generation.
		if err := k.applyLive(ctx, k.running.Inbound, to); err != nil {
			return err
		}
	} else if err := k.writeFile(to, nil); err != nil {
		return err
	}
	if !k.process.Release.CanReload() {
		if k.staleSince.IsZero() {
			k.staleSince = time.Now()
		}
		k.log.Info("this telemt cannot reload: it is restarted when no session is open", logkey.Within, time.Duration(k.tuning.upgradeWithin.Load()))
		return nil
	}
	problem, err := k.startGeneration(ctx)
	k.traffic.asked = nil
	if err != nil {
		return err
	}
	if problem != "" {
		k.log.Warn("telemt did not start a new generation; restarting it", logkey.Problem, problem)
		return k.restart(ctx, to)
	}
	return nil
}

// isCalm reports whether no session is open.
func (k *keeper) isCalm(ctx context.Context) bool {
	if !k.readCounters(ctx) {
		return false
	}
	active, err := k.process.API.ActiveIPs(ctx)
	if err != nil {
		return false
	}
	k.traffic.updatePresence(active, time.Now())
	return len(k.traffic.online) == 0
}

// startGeneration asks telemt for a new generation and returns once it serves. problem is
// why none does, if telemt has not rejected the file itself. The counters are read until
// the new generation serves, because from then on telemt does not show those of the old
// one.
func (k *keeper) startGeneration(ctx context.Context) (problem string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reloadTimeout+k.tuning.drainTimeout(), errors.New("no new generation came up in time"))
	defer cancel()
	poll := time.NewTicker(reloadPoll)
	defer poll.Stop()
	var id int64
	for asked := false; ; {
		k.readCounters(ctx)
		if !asked {
			k.traffic.asked = &reloading{At: sinceBoot(), Uptime: k.traffic.meter.uptime}
			k.noteRecord()
			id, err = k.process.API.Reload(ctx, k.tuning.drainTimeout())
			answer, answered := errors.AsType[*api.Error](err)
			switch {
			case err == nil:
				asked = true
			case !answered:
				return "", k.applyError("ask for a new generation", errors.Join(err, errGenerationUnknown))
			case answer.Status == http.StatusBadRequest: // telemt rejects the file
				return "", k.rejection(answer.Message)
			case answer.Status != http.StatusConflict: // a conflict ends when an earlier generation has drained
				return answer.Message, nil
			}
		} else {
			phase, reason, err := k.process.API.ReloadPhase(ctx, id)
			switch {
			case err != nil: // ask again
			case phase == api.PhaseDraining || phase == api.PhaseSucceeded:
				return "", nil
			case phase == api.PhaseFailed || phase == api.PhaseRolledBack:
				return strings.TrimSpace("the reload " + string(phase) + ": " + reason), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", k.applyError("wait for a new generation", errors.Join(context.Cause(ctx), errGenerationUnknown))
		case <-k.process.Done():
			return "", k.applyError("telemt ended during a reload", errors.New(k.process.Output.ExitReason()))
		case <-poll.C:
		}
	}
}
