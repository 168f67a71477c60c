package telemt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nodeagent/telemt/service"
)

// readCounters takes the counters once, and tells whether it could.
func (k *keeper) readCounters(ctx context.Context) bool {
	s, err := k.process.API.Metrics(ctx)
	if err != nil {
		k.log.Warn("read telemt's counters; nothing is lost unless it ends", "error", err)
		if k.silentSince.IsZero() {
			k.silentSince = time.Now()
		}
		return false
	}
	k.silentSince = time.Time{}
	if s.Suppressed > 0 {
		k.log.Error("telemt leaves users out of its metrics: their traffic is not counted", "users", s.Suppressed)
	}
	k.traffic.add(s)
	return true
}

// collect takes counters, who is there, and how telemt is; and it looks after the
// files, whose watch may tell nothing.
func (k *keeper) collect(ctx context.Context) error {
	if k.process == nil {
		return nil
	}
	if !k.readCounters(ctx) {
		if time.Since(k.silentSince) > k.config.MaxSilence {
			k.log.Error("telemt hangs: ending it", "pid", k.process.PID(), "silent_since", k.silentSince)
			k.process.Kill()
		}
		return nil
	}
	active, err := k.process.API.ActiveIPs(ctx)
	if err != nil {
		k.log.Debug("ask telemt who is there", "error", err)
		return nil
	}
	k.traffic.updatePresence(active, time.Now())
	switch trouble, err := k.process.API.Health(ctx); {
	case err != nil:
		k.log.Debug("ask telemt how it is", "error", err)
	case trouble != "":
		k.publish(StateDegraded, trouble)
	default:
		k.publish(StateReady, "")
	}
	k.checkBinary()
	k.repairFile()
	return nil
}

// repairFile writes the file again where somebody else has changed it.
func (k *keeper) repairFile() {
	written := k.fileText.Load()
	if k.process == nil || written == nil {
		return
	}
	drifted, users := k.folder.Drifted(*written)
	if !drifted {
		return
	}
	k.log.Warn("telemt's file was changed by somebody else; writing it again", "file", k.folder.Config())
	k.deps.Noted(fmt.Errorf("mtproto inbound %q: %s was changed by somebody else, and written again; set telemt's own keys in Core's advanced", k.tag, k.folder.Config()))
	now := time.Now()
	for _, name := range users { // whom only that file let in has to go
		k.disabledSince[name] = now
	}
	k.acceptedAccess = nil
	err := k.folder.Make()
	if err == nil {
		err = k.applyLive(k.life, k.running.Inbound, k.running)
	}
	switch _, refused := errors.AsType[*service.ApplyError](err); {
	case err == nil || k.life.Err() != nil:
	case refused:
		k.log.Error("telemt did not take its own file back; restarting it", "error", err)
		k.stop()
		k.retryAt = time.Now()
	default: // a full disk, say: it serves, and the next collection tries again
		k.log.Error("telemt's file can't be written", "error", err)
	}
}

// binaryChanged looks whether another telemt lies on the disk.
func (k *keeper) binaryChanged() error {
	if k.process != nil {
		k.checkBinary()
	} else if !k.retryAt.IsZero() {
		k.retryAt = time.Now()
	}
	return nil
}

// checkBinary finds out whether it is time to restart into a replaced telemt: as
// soon as nobody has a session open, and at the latest after the configured time.
func (k *keeper) checkBinary() {
	if k.binary.IsCurrent(k.process.Release) {
		k.replacedSince = time.Time{}
		return
	}
	r, err := k.binary.Find(k.life)
	if err != nil || r.Same(k.process.Release) {
		return // it is being written, or removed: the one that runs goes on
	}
	if k.replacedSince.IsZero() {
		k.replacedSince = time.Now()
	}
	k.upgradeDue = len(k.traffic.online) == 0 || time.Since(k.replacedSince) >= k.config.UpgradeWithin
}

func (k *keeper) restartUpgraded() {
	k.upgradeDue, k.replacedSince = false, time.Time{}
	k.log.Info("telemt was replaced: restarting into it", "from", k.process.Release.Version)
	if err := k.restart(k.life, k.running); err != nil && k.process == nil && k.life.Err() == nil {
		k.retryLater(err)
	}
}
