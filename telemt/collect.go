package telemt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/telemt/service"
)

// readCounters reads the counters once, and reports whether it could.
func (k *keeper) readCounters(ctx context.Context) bool {
	s, err := k.process.API.Metrics(ctx)
	if err != nil {
		k.log.Warn("telemt's counters can't be read; their bytes are counted later, unless telemt ends", logkey.Error, err)
		if k.silentSince.IsZero() {
			k.silentSince = time.Now()
		}
		return false
	}
	k.silentSince = time.Time{}
	if s.Suppressed > 0 {
		k.log.Error("telemt leaves users out of its metrics: their traffic is not counted", logkey.Users, s.Suppressed)
	}
	k.traffic.add(s)
	return true
}

// collect reads the counters, the open sessions and telemt's health. It also looks for
// changed files, because the watch may not report them.
func (k *keeper) collect(ctx context.Context) error {
	if k.process == nil {
		return nil
	}
	if !k.readCounters(ctx) {
		if time.Since(k.silentSince) > k.config.MaxSilence {
			k.log.Error("telemt does not answer: killing it", logkey.PID, k.process.PID(), logkey.SilentSince, k.silentSince)
			k.process.Kill()
		}
		return nil
	}
	k.enforceQuotas()
	if k.process == nil {
		return nil
	}
	active, err := k.process.API.ActiveIPs(ctx)
	if err != nil {
		k.log.Debug("read telemt's open sessions", logkey.Error, err)
		return nil
	}
	if k.traffic.hasShortVisits(active) {
		users, err := k.process.API.Users(ctx)
		if err != nil {
			k.log.Debug("read where short visits came from", logkey.Error, err)
		}
		k.traffic.setRecent(users)
	}
	k.traffic.updatePresence(active, time.Now())
	if !k.staleSince.IsZero() && (len(k.traffic.online) == 0 || time.Since(k.staleSince) >= time.Duration(k.tuning.upgradeWithin.Load())) {
		k.upgradeDue = true
	}
	switch problem, err := k.process.API.Health(ctx); {
	case err != nil:
		k.log.Debug("read telemt's health", logkey.Error, err)
	case problem != "":
		k.publish(StateDegraded, problem)
	default:
		k.publish(StateReady, "")
	}
	k.checkBinary()
	k.repairFile()
	return nil
}

// repairFile writes telemt's file again if it was changed by someone else.
func (k *keeper) repairFile() {
	if k.process == nil {
		return
	}
	drifted, users := k.folder.Drifted(k.fileText)
	if !drifted {
		return
	}
	k.log.Warn("telemt's file was not changed by the node; writing it again", logkey.File, k.folder.Config())
	k.deps.Noted(fmt.Errorf("mtproto inbound %q: %s was changed, but not by the node, which has written it again; set telemt's own keys with advanced in Core", k.tag, k.folder.Config()))
	now := time.Now()
	for _, name := range users { // end the sessions of users that only the changed file has
		k.disabledSince[name] = now
	}
	k.acceptedAccess = nil
	err := k.folder.Make()
	if err == nil {
		err = k.applyLive(k.life, k.running.Inbound, k.running)
	}
	switch _, rejected := errors.AsType[*service.ApplyError](err); {
	case err == nil || k.life.Err() != nil:
	case rejected:
		k.log.Error("telemt did not accept its file again; restarting it", logkey.Error, err)
		k.stop()
		k.retryAt = time.Now()
	default: // telemt serves, and the next collect tries again; the disk may be full, for example
		k.log.Error("telemt's file can't be written", logkey.Error, err)
	}
}

// binaryChanged says that something has changed in the folder of telemt's program.
func (k *keeper) binaryChanged() error {
	if k.process != nil {
		k.checkBinary()
	} else if !k.retryAt.IsZero() {
		k.retryAt = time.Now()
	}
	return nil
}

// checkBinary decides whether it is time to restart into another telemt that was
// installed: as soon as no session is open, and after UpgradeWithin in any case.
func (k *keeper) checkBinary() {
	if k.binary.IsCurrent(k.process.Release) {
		k.replacedSince = time.Time{}
		return
	}
	release, err := k.binary.Find(k.life)
	if err != nil || release.Same(k.process.Release) {
		return // it is being written, or was removed: the running telemt goes on
	}
	if k.replacedSince.IsZero() {
		k.replacedSince = time.Now()
	}
	k.upgradeDue = k.upgradeDue || len(k.traffic.online) == 0 || time.Since(k.replacedSince) >= time.Duration(k.tuning.upgradeWithin.Load())
}

func (k *keeper) restartUpgraded() {
	reason := "another telemt is installed"
	if !k.staleSince.IsZero() {
		reason = "a change needs a restart"
	}
	k.upgradeDue, k.replacedSince, k.staleSince = false, time.Time{}, time.Time{}
	k.log.Info("restarting telemt at a calm moment, or because it waited long enough", logkey.Reason, reason, logkey.From, k.process.Release.Version)
	if err := k.restart(k.life, k.running); err != nil && k.process == nil && k.life.Err() == nil {
		k.retryLater(err)
	}
}
