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
)

const (
	// takePoll is how often telemt is asked whether it has taken a change; it
	// looks at the file 50 ms after an edit.
	takePoll = 20 * time.Millisecond
	// takeTimeout is how long it may take before the change is written again: an
	// edit can be swallowed, and another text of the same meaning is not.
	takeTimeout = 4 * time.Second
	takeTries   = 3
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
func (k *keeper) change(ctx context.Context, to wanted) error {
	var err error
	from, process, had := k.running, k.process, k.access
	kind := difference(from, to)
	if k.astray {
		kind = max(kind, changeLive)
	}
	k.traffic.welcome(to.in) // they may move bytes before the change is done
	switch kind {
	case changeNothing:
	case changeLive:
		err = k.live(ctx, from.in, to)
	case changeReload:
		err = k.reload(ctx, to)
	case changeRestart:
		err = k.restart(ctx, to)
	}
	if err != nil && k.process == process { // else a restart came back by itself, or could not
		lost := k.back(ctx, from, to, err)
		err = errors.Join(err, lost)
		if lost != nil && k.process == process && !reflect.DeepEqual(k.access, had) {
			k.astray, k.retryAt = true, time.Now().Add(backoffMin)
		}
	}
	if err != nil {
		k.traffic.serve(from.in)
		return err
	}
	k.running, k.astray = to, false
	k.traffic.serve(to.in)
	return nil
}

// back brings telemt from a change that failed to what ran before.
func (k *keeper) back(ctx context.Context, before, tried wanted, failure error) error {
	ctx, cancel := backContext(ctx, k.life)
	defer cancel()
	var err error
	if errors.Is(failure, errGeneration) {
		k.end()
		err = k.start(ctx, before)
	} else {
		err = k.live(ctx, tried.in, before)
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
func (k *keeper) live(ctx context.Context, from Inbound, to wanted) error {
	now := time.Now()
	for name, since := range k.removed {
		if now.Sub(since) > forgetRemoved {
			delete(k.removed, name)
		}
	}
	for _, name := range leaving(from, to.in) {
		k.removed[name] = now
	}
	for _, c := range to.in.Clients {
		delete(k.removed, to.in.name(c))
	}
	if changed := rotated(from, to.in); len(changed) > 0 {
		if err := k.put(ctx, to, changed); err != nil {
			return err
		}
	}
	return k.put(ctx, to, nil)
}

// put writes the file and waits until telemt has taken it, with some users
// disabled for the moment. What telemt runs with already it does not take again.
func (k *keeper) put(ctx context.Context, to wanted, disabled []string) error {
	config := to.configuration(k.placeFor(disabled))
	access := config["access"]
	switch {
	case !reflect.DeepEqual(access, k.access):
	case reflect.DeepEqual(config, k.filed):
		return nil
	default:
		return k.write(to, disabled)
	}
	for range takeTries {
		before, err := k.process.api.reloads(ctx)
		if err != nil {
			return k.applyError("telemt does not answer", err)
		}
		mark := k.process.output.mark()
		if err := k.write(to, disabled); err != nil {
			return err
		}
		switch taken, err := k.taken(ctx, to, disabled, before, mark); {
		case err != nil:
			if _, refused := errors.AsType[*ApplyError](err); !refused {
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
func (k *keeper) write(to wanted, disabled []string) error {
	config, err := k.render(to, k.placeFor(disabled))
	if err != nil {
		return err
	}
	// Before it is there: whoever watches the folder knows it for our own.
	before := k.written.Swap(&config)
	if err := k.at.write(config); err != nil {
		k.written.Store(before)
		return err
	}
	k.filed = to.configuration(k.placeFor(disabled))
	return nil
}

// placeFor is the process's place, with those who are disabled in its file.
func (k *keeper) placeFor(disabled []string) Place {
	place := k.process.place
	place.Removed = slices.Concat(slices.Sorted(maps.Keys(k.removed)), disabled)
	return place
}

func (k *keeper) render(to wanted, place Place) ([]byte, error) {
	k.writes++
	config, err := Render(to.in, to.upstreams, to.advanced, place)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "# Written by node-agent, which writes it again when it is edited. Change %d.\n%s", k.writes, config), nil
}

// taken tells whether telemt has taken the file: it has counted a reload since,
// and runs with the users. An error has its own words for why it does not.
func (k *keeper) taken(ctx context.Context, to wanted, disabled []string, before, mark int) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	poll := time.NewTicker(takePoll)
	defer poll.Stop()
	for {
		if words := k.process.output.refusal(mark); words != "" {
			return false, k.refused(words)
		}
		if count, err := k.process.api.reloads(ctx); err == nil && count > before {
			users, err := k.process.api.users(ctx)
			if refusal, is := errors.AsType[*apiError](err); is {
				return false, k.refused(refusal.Message)
			}
			if err == nil && runs(users, to.in, disabled) {
				return true, nil
			}
		}
		select {
		case <-k.process.Done():
			return false, k.applyError("telemt ended over a change of its file", errors.New(k.process.output.lastWords()))
		case <-ctx.Done():
			_, err := k.process.api.users(k.life)
			if refusal, is := errors.AsType[*apiError](err); is {
				return false, k.refused(refusal.Message)
			}
			return false, context.Cause(k.life)
		case <-poll.C:
		}
	}
}

func runs(users map[string]user, in Inbound, disabled []string) bool {
	for _, c := range in.Clients {
		name := in.name(c)
		u, there := users[name]
		if !there || !u.InRuntime || u.Enabled == slices.Contains(disabled, name) {
			return false
		}
	}
	return true
}

func (k *keeper) refused(words string) error {
	return &ApplyError{Code: FailureApply, Tag: k.tag, Port: k.want.in.Port, Message: fmt.Sprintf("mtproto inbound %q: telemt refuses the configuration: %s", k.tag, secretDigits.ReplaceAllString(words, hidden))}
}

func (k *keeper) applyError(what string, err error) error {
	return &ApplyError{Code: FailureApply, Tag: k.tag, Port: k.want.in.Port, Message: fmt.Sprintf("mtproto inbound %q: %s: %v", k.tag, what, err), cause: err}
}

// reload lets telemt load all of the file as a new generation, while the
// sessions of the old one go on for the drain's time. A release that can't, or a
// generation that does not come up, is a restart.
func (k *keeper) reload(ctx context.Context, to wanted) error {
	if !k.process.release.canReload() {
		return k.restart(ctx, to)
	}
	if !reflect.DeepEqual(to.configuration(Place{})["access"], k.running.configuration(Place{})["access"]) {
		if err := k.live(ctx, k.running.in, to); err != nil { // before: who leaves is cut now
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
	poll := time.NewTicker(startPoll)
	defer poll.Stop()
	var id int64
	for asked := false; ; {
		k.read(ctx)
		if !asked {
			id, err = k.process.api.reload(ctx, k.config.DrainTimeout)
			refusal, refused := errors.AsType[*apiError](err)
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
			phase, why, err := k.process.api.reloaded(ctx, id)
			switch {
			case err != nil: // asked again
			case phase == phaseDraining || phase == phaseSucceeded:
				return "", nil
			case phase == phaseFailed || phase == phaseRolledBack:
				return strings.TrimSpace("the reload " + string(phase) + ": " + why), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", k.applyError("wait for a new generation", errors.Join(context.Cause(ctx), errGeneration))
		case <-k.process.Done():
			return "", k.applyError("telemt ended over a new generation", errors.New(k.process.output.lastWords()))
		case <-poll.C:
		}
	}
}

// restart ends telemt and starts it in the other configuration, or else in the
// one before. What can be known before is found out while it still serves.
func (k *keeper) restart(ctx context.Context, to wanted) error {
	from := k.running
	if _, err := k.binary.find(ctx); err != nil {
		return &ApplyError{Code: FailureMissing, Tag: k.tag, Port: to.in.Port, Message: fmt.Sprintf("mtproto inbound %q can't be restarted: %v", k.tag, err)}
	}
	if !to.in.overlaps(from.in) {
		if err := canListen(k.tag, to.in.Address()); err != nil {
			return err
		}
	}
	config, err := k.render(to, k.process.place)
	if err == nil {
		err = k.at.hasRoom(len(config))
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
