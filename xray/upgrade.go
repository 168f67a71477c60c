package xray

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// kept is what a worker keeps as long as it runs. The worker repeats it to the daemon that adopts it,
// as ipc.Boot.Settings.
type kept struct {
	// Settings stands for the configuration of the daemon that started the worker.
	Settings string              `json:"settings"`
	NetAdmin bool                `json:"netAdmin,omitzero"` // it keeps CAP_NET_ADMIN
	Folders  map[string]folderID `json:"folders,omitzero"`  // that it may use; those that were there when it started
}

func (k kept) text() string {
	text, _ := json.Marshal(k) // it has nothing that can't be encoded
	return string(text)
}

// settings stands for what of the configuration a worker keeps as long as it runs.
func (e *Engine) settings() string {
	sum := sha256.New()
	for _, part := range []any{e.config.Worker.Env, e.config.ResetKey, e.config.ClientNetworks, e.config.IPv6Prefix} {
		_, _ = fmt.Fprintf(sum, "%q\n", fmt.Sprint(part))
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// outdated says why the worker that serves, which was adopted, is to be replaced; empty where it is
// not.
func (e *Engine) outdated() string {
	switch {
	case e.worker.build != ipc.Build():
		return "another version of node-agent"
	case e.worker.kept.Settings != e.settings():
		return "other settings of the daemon"
	}
	return ""
}

// upgrade lets a worker of this daemon take over from the adopted worker, which is outdated. It
// returns false where the new worker does not run what is wanted: then the old one serves on as
// before, and another daemon tries again.
func (e *Engine) upgrade(ctx context.Context, reason string) bool {
	old, oldState := e.worker, e.running
	worker, err := e.start(ctx, e.wanted, e.held())
	if err != nil {
		e.giveUpUpgrade(old, err)
		return false
	}
	e.serve(worker, e.wanted.Base)
	ops := state.TogetherWithClients(state.Diff(e.running, e.wanted), e.wanted, worker.usersTogether())
	failures, done, err := e.reachAll(ctx, old, oldState, ops)
	if err != nil {
		e.serveAgain(old, oldState)
		worker.end()
		e.presence.workerEnded(worker)
		e.giveUpUpgrade(old, errors.Join(err, e.reclaimSockets(ctx, ops[:done])))
		return false
	}
	_ = e.restored(errors.Join(failures...))
	if len(failures) > 0 {
		e.tryAgain(time.Now().Add(repairWait))
	}
	if old.build != ipc.Build() {
		e.upgradedAt = time.Now()
	}
	e.startDraining(ctx, old, oldState, reason)
	return true
}

// reachAll executes the operations in the new worker, which serves already. failures are those of
// inbounds that the old worker, which runs oldState, could not have either: their port is taken by
// another process. done is how many operations were tried. On an error, what the old worker serves
// can't be served.
func (e *Engine) reachAll(ctx context.Context, old *workerClient, oldState state.State, ops []state.Operation) (failures []error, done int, err error) {
	missing := map[string]bool{}
	var succeeded []state.Operation
	for i, op := range ops {
		if missing[op.Tag] && (op.Kind == state.OpAddUsers || op.Kind == state.OpOpenInbound) {
			continue
		}
		err := e.releaseSocket(ctx, old, oldState, op)
		if err == nil {
			err = e.execute(ctx, op)
		}
		_, served := oldState.Inbounds[op.Tag]
		switch {
		case err == nil:
			succeeded = append(succeeded, op)
		case bringsInbound(op) && !served && !errors.Is(err, errWorkerGone):
			missing[op.Tag] = true
			succeeded = withoutPrepared(succeeded, op)
			failures = append(failures, fmt.Errorf("restore: %s %s: %w", op.Kind, op.Tag, err))
		default:
			return nil, i + 1, fmt.Errorf("%s %s: %w", op.Kind, op.Tag, err)
		}
	}
	e.didAll(succeeded, e.wanted, len(failures) == 0)
	return failures, len(ops), nil
}

// giveUpUpgrade tells that the worker of this build can't serve, and that the old one goes on.
func (e *Engine) giveUpUpgrade(old *workerClient, err error) {
	e.upgradeFailed = true
	if errors.Is(err, supervise.ErrLeave) { // the next daemon does it
		return
	}
	message := fmt.Sprintf("another xray worker, for this version of node-agent and its settings, can't take over, and the one before goes on: %v", err)
	e.deps.Log.Error("the upgrade of the worker is given up", logkey.Error, err, logkey.PID, old.process.PID(), logkey.Build, old.build, logkey.ThisBuild, ipc.Build())
	e.mu.Lock()
	e.status.UpgradeFailed = message
	e.mu.Unlock()
	e.deps.Failed(Failure{Fault: &fault.Fault{Code: wire.CodeUpgradeFailed, Message: message, Retry: true}})
}
