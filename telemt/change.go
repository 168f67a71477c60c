package telemt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"nodeagent/telemt/api"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

const (
	// acceptPoll is how often telemt is asked whether it has applied a changed file. It
	// reads the file 50 ms after a change.
	acceptPoll = 20 * time.Millisecond
	// acceptTimeout is how long telemt may take to apply a changed file. After that the
	// file is written again, because telemt can miss a change; see render.
	acceptTimeout = 4 * time.Second
	acceptTries   = 3
	// reloadPoll is how often telemt is asked whether a new generation serves.
	reloadPoll = 50 * time.Millisecond
	// reloadTimeout limits the wait for a new generation, in addition to DrainTimeout.
	reloadTimeout = 60 * time.Second
	// keepDisabled is how long a removed user stays in the file as disabled. A connection
	// that was accepted before the removal can take telemt's 300 s until its first byte
	// and 60 s for its handshake.
	keepDisabled = 10 * time.Minute
	// rollbackTimeout limits the way back if the daemon is about to end, or if the caller
	// has given up. The next start begins with the last good configuration anyway.
	rollbackTimeout = 5 * time.Second
)

// errGenerationUnknown means that it is not known which generation of telemt serves.
var errGenerationUnknown = errors.New("the result of the reload is not known")

// change brings the running telemt to another configuration. If that fails, it brings
// telemt back to the one before. If that fails too, either no process runs when change
// returns, or the keeper is uncertain and has set retryAt.
func (k *keeper) change(ctx context.Context, to service.Desired) error {
	var err error
	from, ran, had := k.running, k.process, k.acceptedAccess
	kind := service.Diff(from, to)
	if k.uncertain || !slices.Equal(k.shutOut(to.Inbound), k.shut) {
		kind = max(kind, service.ChangeLive)
	}
	k.process.Output.Know(to.Inbound)
	k.traffic.addClients(to.Inbound) // they can move bytes before the change is complete
	switch kind {
	case service.ChangeNone:
	case service.ChangeLive:
		err = k.applyLive(ctx, from.Inbound, to)
	case service.ChangeReload:
		if err = k.judge(ctx, to); err == nil {
			err = k.reload(ctx, to)
		}
	case service.ChangeRestart:
		if err = k.judge(ctx, to); err == nil {
			err = k.restart(ctx, to)
		}
	}
	if err != nil && k.process == ran { // otherwise restart has tried the way back
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
	k.expiresAt = service.NextExpiry(to.Inbound, time.Now())
	k.traffic.setClients(to.Inbound)
	k.noteRecord()
	return nil
}

// judge asks telemt about a configuration that a running telemt would not take as it is, before
// any session ends: some wrong keys end telemt as soon as it reads its file. The port alone needs
// no judgement.
func (k *keeper) judge(ctx context.Context, to service.Desired) error {
	moved := to
	moved.Inbound.Listen, moved.Inbound.Port = k.running.Inbound.Listen, k.running.Inbound.Port
	if service.Diff(k.running, moved) < service.ChangeReload {
		return nil
	}
	release, err := k.binary.Find(ctx)
	if err != nil {
		return nil //nolint:nilerr // a restart says what is missing
	}
	err = process.Judge(ctx, process.Spec{Release: release, Folder: k.folder, Desired: to}, k.log)
	if refusal, is := errors.AsType[*service.ApplyError](err); is {
		refusal.Port = to.Inbound.Port
	}
	return err
}

// rollBack brings telemt back to what ran before a change that has failed with failure.
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
		return &service.BackError{Err: fmt.Errorf("mtproto inbound %q: %w", k.tag, err)}
	}
	return nil
}

// rollbackContext returns a context for the way back from a change. It does not end with
// ctx, the context of the change.
func rollbackContext(ctx, life context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return context.WithCancel(life)
	}
	return context.WithTimeout(life, rollbackTimeout)
}

// applyLive changes users and their limits through the file. A removed user stays in the
// file as disabled, because that makes telemt end the user's sessions. A user with another
// secret or expiry is disabled first for the same reason, and then enabled with the new
// one.
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

// writeAndWait writes the file and waits until telemt has applied it. The users in
// disabled are disabled, in addition to the removed ones and to those whose time is over. telemt does not apply a file
// without a difference in the table "access", so that there is nothing to wait for then.
func (k *keeper) writeAndWait(ctx context.Context, to service.Desired, disabled []string) error {
	shut := k.shutOut(to.Inbound)
	disabled = slices.Concat(disabled, shut)
	tables := to.Configuration(k.settingsWith(disabled))
	access := tables["access"]
	switch {
	case !reflect.DeepEqual(access, k.acceptedAccess):
	case reflect.DeepEqual(tables, k.fileTables):
		k.shut = shut
		return nil
	default:
		return k.writeFile(to, disabled)
	}
	for range acceptTries {
		before, err := k.process.API.ReloadCount(ctx)
		if err != nil {
			return k.applyError("telemt does not answer", err)
		}
		position := k.process.Output.Position()
		if err := k.writeFile(to, disabled); err != nil {
			return err
		}
		switch accepted, err := k.waitAccepted(ctx, to, disabled, before, position); {
		case err != nil:
			if _, rejected := errors.AsType[*service.ApplyError](err); !rejected {
				k.acceptedAccess = nil // telemt may still apply it
			}
			return err
		// Where it is not known what telemt has applied, the file may differ from that in
		// nothing, and telemt counts no reload.
		case accepted || k.acceptedAccess == nil:
			k.acceptedAccess, k.shut = access, shut
			return nil
		}
		k.log.Warn("telemt did not apply a change of its file; writing it again")
	}
	return k.applyError("telemt does not apply a change of its file", fmt.Errorf("written %d times within %s", acceptTries, acceptTries*acceptTimeout))
}

// writeFile replaces the file.
func (k *keeper) writeFile(to service.Desired, disabled []string) error {
	settings := k.settingsWith(disabled)
	text, err := k.render(to, settings)
	if err != nil {
		return err
	}
	if err := k.folder.Write(text); err != nil {
		return err
	}
	k.fileText, k.fileTables = text, to.Configuration(settings)
	return nil
}

// settingsWith returns the process's settings, with the removed users and those in
// disabled as disabled users.
func (k *keeper) settingsWith(disabled []string) service.NodeSettings {
	settings := k.process.Settings
	settings.Disabled = slices.Concat(slices.Sorted(maps.Keys(k.disabledSince)), disabled)
	return settings
}

// render returns the text of the file. Each text is different, so that telemt applies one
// that it has missed before.
func (k *keeper) render(to service.Desired, settings service.NodeSettings) ([]byte, error) {
	k.writeCount++
	text, err := to.Render(settings)
	if err != nil {
		return nil, err
	}
	return writtenText(k.writeCount, text), nil
}

// writtenText is the file with that text and number of the change.
func writtenText(number int, text []byte) []byte {
	return fmt.Appendf(nil, process.Heading+"\n%s", number, text)
}

// waitAccepted waits until telemt has applied the file: it has counted a reload since
// reloadsBefore, and knows the users. The result is false if it has not within
// acceptTimeout. An error means that telemt has rejected the file or ended, or that the
// keeper ends. position is the one of the output before the file was written.
func (k *keeper) waitAccepted(ctx context.Context, to service.Desired, disabled []string, reloadsBefore, position int) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, acceptTimeout)
	defer cancel()
	poll := time.NewTicker(acceptPoll)
	defer poll.Stop()
	for {
		if reason := k.process.Output.RejectionAfter(position); reason != "" {
			return false, k.rejection(reason)
		}
		if count, err := k.process.API.ReloadCount(ctx); err == nil && count > reloadsBefore {
			users, err := k.process.API.Users(ctx)
			if answer, ok := errors.AsType[*api.Error](err); ok {
				return false, k.rejection(answer.Message)
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
			if answer, ok := errors.AsType[*api.Error](err); ok {
				return false, k.rejection(answer.Message)
			}
			return false, context.Cause(k.life)
		case <-poll.C:
		}
	}
}

// allInRuntime reports whether telemt has applied the inbound's clients, with those in
// disabled as disabled.
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

// rejection returns the error for a file that telemt has rejected. reason is telemt's text.
func (k *keeper) rejection(reason string) error {
	return &service.ApplyError{
		Code: service.FailureApply, Tag: k.tag, Port: k.desired.Inbound.Port,
		Message: fmt.Sprintf("mtproto inbound %q: telemt rejects the configuration: %s", k.tag, process.Redact(reason)), Final: true,
	}
}

func (k *keeper) applyError(problem string, cause error) error {
	return &service.ApplyError{
		Code: service.FailureApply, Tag: k.tag, Port: k.desired.Inbound.Port,
		Message: fmt.Sprintf("mtproto inbound %q: %s: %v", k.tag, problem, cause), Cause: cause,
	}
}

// restart stops telemt and starts it with another configuration. If that fails, it is
// started with the one before. Whatever can be checked beforehand is checked while telemt
// still serves.
func (k *keeper) restart(ctx context.Context, to service.Desired) error {
	from := k.running
	if _, err := k.binary.Find(ctx); err != nil {
		return &service.ApplyError{
			Code: service.FailureMissing, Tag: k.tag, Port: to.Inbound.Port,
			Message: fmt.Sprintf("mtproto inbound %q can't be restarted: %v", k.tag, err),
		}
	}
	if !to.Inbound.Overlaps(from.Inbound) {
		if err := process.CheckPorts(to.Inbound); err != nil {
			return err
		}
	}
	text, err := k.render(to, k.process.Settings)
	if err == nil {
		err = k.folder.CheckSpace(len(text))
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
	return errors.Join(err, backError(k.start(ctx, from)))
}

// backError marks the error of a way back; nil stays nil.
func backError(err error) error {
	if err == nil {
		return nil
	}
	return &service.BackError{Err: err}
}
