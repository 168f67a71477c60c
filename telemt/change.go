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
	// takePoll is how often telemt is asked whether it has taken a change; it
	// looks at the file 50 ms after an edit.
	takePoll = 20 * time.Millisecond
	// takeTimeout is how long it may take before the change is written again: an
	// edit can be swallowed, and another text of the same meaning is not.
	takeTimeout = 4 * time.Second
	takeTries   = 3
	// reloadPoll is how often telemt is asked whether a new generation serves.
	reloadPoll = 50 * time.Millisecond
	// reloadTimeout bounds the wait for a new generation to serve.
	reloadTimeout = 60 * time.Second
	// forgetRemoved is how long a removed user stands in the file as disabled: a
	// connection that was accepted before can take telemt's 300 s until its
	// first byte and 60 s for its handshake.
	forgetRemoved = 10 * time.Minute
)

// errGeneration means that nobody knows which generation of telemt serves.
var errGeneration = errors.New("the reload has no end that is known")

// change brings the running telemt to another configuration, or back to the one
// that it has. Where even that fails, either no process runs afterwards or it is
// astray, and is brought to what is wanted later.
func (k *keeper) change(ctx context.Context, to service.Wanted) error {
	var err error
	from, ran, had := k.running, k.process, k.access
	kind := service.Difference(from, to)
	if k.astray {
		kind = max(kind, service.ChangeLive)
	}
	k.traffic.welcome(to.In) // they may move bytes before the change is done
	switch kind {
	case service.ChangeNothing:
	case service.ChangeLive:
		err = k.live(ctx, from.In, to)
	case service.ChangeReload:
		err = k.reload(ctx, to)
	case service.ChangeRestart:
		err = k.restart(ctx, to)
	}
	if err != nil && k.process == ran { // else a restart came back by itself, or could not
		lost := k.back(ctx, from, to, err)
		err = errors.Join(err, lost)
		if lost != nil && k.process == ran && !reflect.DeepEqual(k.access, had) {
			k.astray, k.retryAt = true, time.Now().Add(backoffMin)
		}
	}
	if err != nil {
		k.traffic.serve(from.In)
		return err
	}
	k.running, k.astray = to, false
	k.traffic.serve(to.In)
	return nil
}

// back brings telemt from a change that failed to what ran before.
func (k *keeper) back(ctx context.Context, before, tried service.Wanted, failure error) error {
	ctx, cancel := backContext(ctx, k.life)
	defer cancel()
	var err error
	if errors.Is(failure, errGeneration) {
		k.end()
		err = k.start(ctx, before)
	} else {
		err = k.live(ctx, tried.In, before)
	}
	if err != nil {
		return fmt.Errorf("mtproto inbound %q: go back to what ran before: %w", k.tag, err)
	}
	return nil
}

// backTimeout bounds the way back of a daemon that is to end: the next start begins
// with what was good.
const backTimeout = 5 * time.Second

// backContext is for the way back, which is not given up with the way there.
func backContext(ctx, life context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return context.WithCancel(life)
	}
	return context.WithTimeout(life, backTimeout)
}

// live lets telemt take the users and their limits from the file. Who was
// removed stays in it as disabled, for that cuts the open sessions; who has
// another secret is disabled first, and comes back with it.
func (k *keeper) live(ctx context.Context, from service.Inbound, to service.Wanted) error {
	now := time.Now()
	for name, since := range k.removed {
		if now.Sub(since) > forgetRemoved {
			delete(k.removed, name)
		}
	}
	for _, name := range service.Leaving(from, to.In) {
		k.removed[name] = now
	}
	for _, c := range to.In.Clients {
		delete(k.removed, to.In.Name(c))
	}
	if changed := service.Rotated(from, to.In); len(changed) > 0 {
		if err := k.put(ctx, to, changed); err != nil {
			return err
		}
	}
	return k.put(ctx, to, nil)
}

// put writes the file and waits until telemt has taken it, with some users
// disabled for the moment. What telemt runs with already it does not take again.
func (k *keeper) put(ctx context.Context, to service.Wanted, disabled []string) error {
	config := to.Configuration(k.placeFor(disabled))
	access := config["access"]
	switch {
	case !reflect.DeepEqual(access, k.access):
	case reflect.DeepEqual(config, k.filed):
		return nil
	default:
		return k.write(to, disabled)
	}
	for range takeTries {
		before, err := k.process.API.Reloads(ctx)
		if err != nil {
			return k.applyError("telemt does not answer", err)
		}
		mark := k.process.Output.Mark()
		if err := k.write(to, disabled); err != nil {
			return err
		}
		switch taken, err := k.taken(ctx, to, disabled, before, mark); {
		case err != nil:
			if _, refused := errors.AsType[*service.ApplyError](err); !refused {
				k.access = nil // it may take it yet
			}
			return err
		case taken || k.access == nil: // nobody knows whether there was something to take
			k.access = access
			return nil
		}
		k.log.Warn("telemt did not take a change of its file; writing it again")
	}
	return k.applyError("telemt does not take a change of its file", fmt.Errorf("%d writes within %s", takeTries, takeTries*takeTimeout))
}

// write puts the file in place. Each one is another text: telemt compares.
func (k *keeper) write(to service.Wanted, disabled []string) error {
	config, err := k.render(to, k.placeFor(disabled))
	if err != nil {
		return err
	}
	// Before it is there: whoever watches the folder knows it for our own.
	before := k.written.Swap(&config)
	if err := k.at.Write(config); err != nil {
		k.written.Store(before)
		return err
	}
	k.filed = to.Configuration(k.placeFor(disabled))
	return nil
}

// placeFor is the process's place, with those who are disabled in its file.
func (k *keeper) placeFor(disabled []string) service.Place {
	place := k.process.Place
	place.Removed = slices.Concat(slices.Sorted(maps.Keys(k.removed)), disabled)
	return place
}

func (k *keeper) render(to service.Wanted, place service.Place) ([]byte, error) {
	k.writes++
	config, err := service.Render(to.In, to.Upstreams, to.Advanced, place)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "# Written by node-agent, which writes it again when it is edited. Change %d.\n%s", k.writes, config), nil
}

// taken tells whether telemt has taken the file: it has counted a reload since,
// and runs with the users. An error has its own words for why it does not.
func (k *keeper) taken(ctx context.Context, to service.Wanted, disabled []string, before, mark int) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	poll := time.NewTicker(takePoll)
	defer poll.Stop()
	for {
		if words := k.process.Output.Refusal(mark); words != "" {
			return false, k.refused(words)
		}
		if count, err := k.process.API.Reloads(ctx); err == nil && count > before {
			users, err := k.process.API.Users(ctx)
			if refusal, is := errors.AsType[*api.Error](err); is {
				return false, k.refused(refusal.Message)
			}
			if err == nil && runs(users, to.In, disabled) {
				return true, nil
			}
		}
		select {
		case <-k.process.Done():
			return false, k.applyError("telemt ended over a change of its file", errors.New(k.process.Output.LastWords()))
		case <-ctx.Done():
			_, err := k.process.API.Users(k.life)
			if refusal, is := errors.AsType[*api.Error](err); is {
				return false, k.refused(refusal.Message)
			}
			return false, context.Cause(k.life)
		case <-poll.C:
		}
	}
}

func runs(users map[string]api.User, in service.Inbound, disabled []string) bool {
	for _, c := range in.Clients {
		name := in.Name(c)
		u, there := users[name]
		if !there || !u.InRuntime || u.Enabled == slices.Contains(disabled, name) {
			return false
		}
	}
	return true
}

func (k *keeper) refused(words string) error {
	return &service.ApplyError{Code: service.FailureApply, Tag: k.tag, Port: k.want.In.Port, Message: fmt.Sprintf("mtproto inbound %q: telemt refuses the configuration: %s", k.tag, process.HideSecrets(words))}
}

func (k *keeper) applyError(what string, err error) error {
	return &service.ApplyError{Code: service.FailureApply, Tag: k.tag, Port: k.want.In.Port, Message: fmt.Sprintf("mtproto inbound %q: %s: %v", k.tag, what, err), Cause: err}
}

// reload lets telemt load all of the file as a new generation, while the
// sessions of the old one go on for the drain's time. A release that can't, or a
// generation that does not come up, is a restart.
func (k *keeper) reload(ctx context.Context, to service.Wanted) error {
	if !k.process.Release.CanReload() {
		return k.restart(ctx, to)
	}
	if !reflect.DeepEqual(to.Configuration(service.Place{})["access"], k.running.Configuration(service.Place{})["access"]) {
		if err := k.live(ctx, k.running.In, to); err != nil { // before: who leaves is cut now
			return err
		}
	} else if err := k.write(to, nil); err != nil {
		return err
	}
	words, err := k.nextGeneration(ctx)
	if err != nil {
		return err
	}
	if words != "" {
		k.log.Warn("telemt did not bring up a new generation; restarting it", "words", words)
		return k.restart(ctx, to)
	}
	return nil
}

// nextGeneration returns once a new generation serves. words say why none does,
// where telemt has nothing against the file itself. The counters are read until the
// last moment: those of the old generation are shown by nobody then.
func (k *keeper) nextGeneration(ctx context.Context) (words string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reloadTimeout+k.config.DrainTimeout, errors.New("no new generation came up in time"))
	defer cancel()
	poll := time.NewTicker(reloadPoll)
	defer poll.Stop()
	var id int64
	for asked := false; ; {
		k.read(ctx)
		if !asked {
			id, err = k.process.API.Reload(ctx, k.config.DrainTimeout)
			refusal, refused := errors.AsType[*api.Error](err)
			switch {
			case err == nil:
				asked = true
			case !refused:
				return "", k.applyError("ask for a new generation", errors.Join(err, errGeneration))
			case refusal.Status == http.StatusBadRequest: // a word on the file
				return "", k.refused(refusal.Message)
			case refusal.Status != http.StatusConflict: // one that drains still is waited for
				return refusal.Message, nil
			}
		} else {
			phase, why, err := k.process.API.Reloaded(ctx, id)
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
			return "", k.applyError("wait for a new generation", errors.Join(context.Cause(ctx), errGeneration))
		case <-k.process.Done():
			return "", k.applyError("telemt ended over a new generation", errors.New(k.process.Output.LastWords()))
		case <-poll.C:
		}
	}
}

// restart ends telemt and starts it in the other configuration, or else in the
// one before. What can be known before is found out while it still serves.
func (k *keeper) restart(ctx context.Context, to service.Wanted) error {
	from := k.running
	if _, err := k.binary.Find(ctx); err != nil {
		return &service.ApplyError{Code: service.FailureMissing, Tag: k.tag, Port: to.In.Port, Message: fmt.Sprintf("mtproto inbound %q can't be restarted: %v", k.tag, err)}
	}
	if !to.In.Overlaps(from.In) {
		if err := process.CanListen(k.tag, to.In.Address()); err != nil {
			return err
		}
	}
	config, err := k.render(to, k.process.Place)
	if err == nil {
		err = k.at.HasRoom(len(config))
	}
	if err != nil {
		return err
	}
	k.end()
	if err = k.start(ctx, to); err == nil {
		return nil
	}
	ctx, cancel := backContext(ctx, k.life)
	defer cancel()
	return errors.Join(err, k.start(ctx, from))
}
