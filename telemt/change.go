package telemt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"nodeagent/telemt/api"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

const (
	// acceptPoll is how often telemt is asked whether it has taken a change; it
	// looks at the file 50 ms after an edit.
	acceptPoll = 20 * time.Millisecond
	// acceptTimeout is how long it may take before the change is written again: an
	// edit can be swallowed, and another text of the same meaning is not.
	acceptTimeout = 4 * time.Second
	acceptTries   = 3
	// reloadPoll is how often telemt is asked whether a new generation serves.
	reloadPoll = 50 * time.Millisecond
	// reloadTimeout bounds the wait for a new generation to serve.
	reloadTimeout = 60 * time.Second
	// keepDisabled is how long a removed user stands in the file as disabled: a
	// connection that was accepted before can take telemt's 300 s until its
	// first byte and 60 s for its handshake.
	keepDisabled = 10 * time.Minute
)

// errGenerationUnknown means that nobody knows which generation of telemt serves.
var errGenerationUnknown = errors.New("the reload has no end that is known")

// change brings the running telemt to another configuration, or back to the one
// that it has. Where even that fails, either no process runs afterwards or it is
// astray, and is brought to what is wanted later.
func (k *keeper) change(ctx context.Context, to service.Desired) error {
	var err error
	from, ran, had := k.running, k.process, k.acceptedAccess
	kind := service.Diff(from, to)
	if k.uncertain {
		kind = max(kind, service.ChangeLive)
	}
	k.traffic.addClients(to.Inbound) // they may move bytes before the change is done
	switch kind {
	case service.ChangeNone:
	case service.ChangeLive:
		err = k.applyLive(ctx, from.Inbound, to)
	case service.ChangeReload:
		err = k.reload(ctx, to)
	case service.ChangeRestart:
		err = k.restart(ctx, to)
	}
	if err != nil && k.process == ran { // else a restart came back by itself, or could not
		lost := k.rollBack(ctx, from, to, err)
		err = errors.Join(err, lost)
		if lost != nil && k.process == ran && !reflect.DeepEqual(k.acceptedAccess, had) {
			k.uncertain, k.retryAt = true, time.Now().Add(backoffMin)
		}
	}
	if err != nil {
		k.traffic.setClients(from.Inbound)
		return err
	}
	k.running, k.uncertain = to, false
	k.traffic.setClients(to.Inbound)
	return nil
}

// rollBack brings telemt from a change that failed to what ran before.
func (k *keeper) rollBack(ctx context.Context, before, tried service.Desired, failure error) error {
	ctx, cancel := rollbackContext(ctx, k.life)
	defer cancel()
	var err error
	if errors.Is(failure, errGenerationUnknown) {
		k.stop()
		err = k.start(ctx, before)
	} else {
		err = k.applyLive(ctx, tried.Inbound, before)
	}
	if err != nil {
		return fmt.Errorf("mtproto inbound %q: go back to what ran before: %w", k.tag, err)
	}
	return nil
}

// rollbackTimeout bounds the way back of a daemon that is to end: the next start begins
// with what was good.
const rollbackTimeout = 5 * time.Second

// rollbackContext is for the way back, which is not given up with the way there.
func rollbackContext(ctx, life context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return context.WithCancel(life)
	}
	return context.WithTimeout(life, rollbackTimeout)
}

// applyLive lets telemt take the users and their limits from the file. Who was
// removed stays in it as disabled, for that cuts the open sessions; who has
// another secret is disabled first, and comes back with it.
func (k *keeper) applyLive(ctx context.Context, from service.Inbound, to service.Desired) error {
	now := time.Now()
	for name, since := range k.disabledSince {
		if now.Sub(since) > keepDisabled {
			delete(k.disabledSince, name)
		}
	}
	for _, name := range service.RemovedUsers(from, to.Inbound) {
		k.disabledSince[name] = now
	}
	for _, c := range to.Inbound.Clients {
		delete(k.disabledSince, to.Inbound.UserName(c))
	}
	if changed := service.ChangedCredentials(from, to.Inbound); len(changed) > 0 {
		if err := k.writeAndWait(ctx, to, changed); err != nil {
			return err
		}
	}
	return k.writeAndWait(ctx, to, nil)
}

// writeAndWait writes the file and waits until telemt has taken it, with some users
// disabled for the moment. What telemt runs with already it does not take again.
func (k *keeper) writeAndWait(ctx context.Context, to service.Desired, disabled []string) error {
	config := to.Configuration(k.settingsWith(disabled))
	access := config["access"]
	switch {
	case !reflect.DeepEqual(access, k.acceptedAccess):
	case reflect.DeepEqual(config, k.fileTables):
		return nil
	default:
		return k.writeFile(to, disabled)
	}
	for range acceptTries {
		before, err := k.process.API.ReloadCount(ctx)
		if err != nil {
			return k.applyError("telemt does not answer", err)
		}
		mark := k.process.Output.Position()
		if err := k.writeFile(to, disabled); err != nil {
			return err
		}
		switch taken, err := k.waitAccepted(ctx, to, disabled, before, mark); {
		case err != nil:
			if _, refused := errors.AsType[*service.ApplyError](err); !refused {
				k.acceptedAccess = nil // it may take it yet
			}
			return err
		case taken || k.acceptedAccess == nil: // nobody knows whether there was something to take
			k.acceptedAccess = access
			return nil
		}
		k.log.Warn("telemt did not take a change of its file; writing it again")
	}
	return k.applyError("telemt does not take a change of its file", fmt.Errorf("%d writes within %s", acceptTries, acceptTries*acceptTimeout))
}

// writeFile puts the file in place. Each one is another text: telemt compares.
func (k *keeper) writeFile(to service.Desired, disabled []string) error {
	config, err := k.render(to, k.settingsWith(disabled))
	if err != nil {
		return err
	}
	// Before it is there: whoever watches the folder knows it for our own.
	before := k.fileText.Swap(&config)
	if err := k.folder.Write(config); err != nil {
		k.fileText.Store(before)
		return err
	}
	k.fileTables = to.Configuration(k.settingsWith(disabled))
	return nil
}

// settingsWith is the process's place, with those who are disabled in its file.
func (k *keeper) settingsWith(disabled []string) service.NodeSettings {
	settings := k.process.Settings
	settings.Disabled = slices.Concat(slices.Sorted(maps.Keys(k.disabledSince)), disabled)
	return settings
}

func (k *keeper) render(to service.Desired, settings service.NodeSettings) ([]byte, error) {
	k.writeCount++
	config, err := to.Render(settings)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "# Written by node-agent, which writes it again when it is edited. Change %d.\n%s", k.writeCount, config), nil
}

// waitAccepted tells whether telemt has taken the file: it has counted a reload since,
// and runs with the users. An error has its own words for why it does not.
func (k *keeper) waitAccepted(ctx context.Context, to service.Desired, disabled []string, before, mark int) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, acceptTimeout)
	defer cancel()
	poll := time.NewTicker(acceptPoll)
	defer poll.Stop()
	for {
		if words := k.process.Output.RejectionAfter(mark); words != "" {
			return false, k.rejection(words)
		}
		if count, err := k.process.API.ReloadCount(ctx); err == nil && count > before {
			users, err := k.process.API.Users(ctx)
			if refusal, is := errors.AsType[*api.Error](err); is {
				return false, k.rejection(refusal.Message)
			}
			if err == nil && allInRuntime(users, to.Inbound, disabled) {
				return true, nil
			}
		}
		select {
		case <-k.process.Done():
			return false, k.applyError("telemt ended over a change of its file", errors.New(k.process.Output.ExitReason()))
		case <-ctx.Done():
			_, err := k.process.API.Users(k.life)
			if refusal, is := errors.AsType[*api.Error](err); is {
				return false, k.rejection(refusal.Message)
			}
			return false, context.Cause(k.life)
		case <-poll.C:
		}
	}
}

func allInRuntime(users map[string]api.User, in service.Inbound, disabled []string) bool {
	for _, c := range in.Clients {
		name := in.UserName(c)
		u, there := users[name]
		if !there || !u.InRuntime || u.Enabled == slices.Contains(disabled, name) {
			return false
		}
	}
	return true
}

func (k *keeper) rejection(words string) error {
	return &service.ApplyError{Code: service.FailureApply, Tag: k.tag, Port: k.desired.Inbound.Port, Message: fmt.Sprintf("mtproto inbound %q: telemt refuses the configuration: %s", k.tag, process.Redact(words))}
}

func (k *keeper) applyError(what string, err error) error {
	return &service.ApplyError{Code: service.FailureApply, Tag: k.tag, Port: k.desired.Inbound.Port, Message: fmt.Sprintf("mtproto inbound %q: %s: %v", k.tag, what, err), Cause: err}
}

// reload lets telemt load all of the file as a new generation, while the
// sessions of the old one go on for the drain's time. A release that can't, or a
// generation that does not come up, is a restart.
func (k *keeper) reload(ctx context.Context, to service.Desired) error {
	if !k.process.Release.CanReload() {
		return k.restart(ctx, to)
	}
	if !reflect.DeepEqual(to.Configuration(service.NodeSettings{})["access"], k.running.Configuration(service.NodeSettings{})["access"]) {
		if err := k.applyLive(ctx, k.running.Inbound, to); err != nil { // before: who leaves is cut now
			return err
		}
	} else if err := k.writeFile(to, nil); err != nil {
		return err
	}
	words, err := k.startGeneration(ctx)
	if err != nil {
		return err
	}
	if words != "" {
		k.log.Warn("telemt did not bring up a new generation; restarting it", "words", words)
		return k.restart(ctx, to)
	}
	return nil
}

// startGeneration returns once a new generation serves. words say why none does,
// where telemt has nothing against the file itself. The counters are read until the
// last moment: those of the old generation are shown by nobody then.
func (k *keeper) startGeneration(ctx context.Context) (words string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reloadTimeout+k.config.DrainTimeout, errors.New("no new generation came up in time"))
	defer cancel()
	poll := time.NewTicker(reloadPoll)
	defer poll.Stop()
	var id int64
	for asked := false; ; {
		k.readCounters(ctx)
		if !asked {
			id, err = k.process.API.Reload(ctx, k.config.DrainTimeout)
			refusal, refused := errors.AsType[*api.Error](err)
			switch {
			case err == nil:
				asked = true
			case !refused:
				return "", k.applyError("ask for a new generation", errors.Join(err, errGenerationUnknown))
			case refusal.Status == http.StatusBadRequest: // a word on the file
				return "", k.rejection(refusal.Message)
			case refusal.Status != http.StatusConflict: // one that drains still is waited for
				return refusal.Message, nil
			}
		} else {
			phase, why, err := k.process.API.ReloadPhase(ctx, id)
			switch {
			case err != nil: // asked again
			case phase == api.PhaseDraining || phase == api.PhaseSucceeded:
				return "", nil
			case phase == api.PhaseFailed || phase == api.PhaseRolledBack:
				return strings.TrimSpace("the reload " + string(phase) + ": " + why), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", k.applyError("wait for a new generation", errors.Join(context.Cause(ctx), errGenerationUnknown))
		case <-k.process.Done():
			return "", k.applyError("telemt ended over a new generation", errors.New(k.process.Output.ExitReason()))
		case <-poll.C:
		}
	}
}

// restart ends telemt and starts it in the other configuration, or else in the
// one before. What can be known before is found out while it still serves.
func (k *keeper) restart(ctx context.Context, to service.Desired) error {
	from := k.running
	if _, err := k.binary.Find(ctx); err != nil {
		return &service.ApplyError{Code: service.FailureMissing, Tag: k.tag, Port: to.Inbound.Port, Message: fmt.Sprintf("mtproto inbound %q can't be restarted: %v", k.tag, err)}
	}
	if !to.Inbound.Overlaps(from.Inbound) {
		if err := process.CheckPort(k.tag, to.Inbound.Address()); err != nil {
			return err
		}
	}
	config, err := k.render(to, k.process.Settings)
	if err == nil {
		err = k.folder.CheckSpace(len(config))
	}
	if err != nil {
		return err
	}
	k.stop()
	if err = k.start(ctx, to); err == nil {
		return nil
	}
	ctx, cancel := rollbackContext(ctx, k.life)
	defer cancel()
	return errors.Join(err, k.start(ctx, from))
}
