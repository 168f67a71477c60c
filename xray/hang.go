package xray

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nodeagent/internal/supervise"
	"nodeagent/xray/ipc"
)

const (
	pingInterval = 200 * time.Millisecond
	// A worker that leaves a ping without an answer hangs: once hangLooks looks in a
	// row, hangInterval apart, find it with a processor to spare, on which it could
	// have answered; or, where a crowd keeps all of them, after pingTimeout.
	hangInterval = 150 * time.Millisecond
	firstLook    = 20 * time.Millisecond // most answers come before
	hangLooks    = 4
	pingTimeout  = 5 * time.Second
)

var errHangs = errors.New("it has time and gives no answer")

// couldAnswer tells whether a worker of that many processors has one to spare. Which
// goroutine's turn it is takes long to come in a crowd that has all of them, and in
// swap; nothing is said of that.
func couldAnswer(now supervise.Activity, processors int) bool {
	return now.Held == 0 && now.Running < processors
}

// watch pings a worker until it ends, also while it works on an operation, and
// ends one that hangs.
func (e *Engine) watch(w *workerClient) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-w.process.Done():
			return
		case <-tick.C:
		}
		info, err := w.ping()
		switch {
		case errors.Is(err, errWorkerGone):
			return
		case err != nil:
			e.deps.Log.Error("the worker hangs, ending it", "pid", w.process.PID(), "error", err)
			w.hang.Store(err)
			w.process.Kill()
			return
		}
		e.answered(w, info)
	}
}

// ping asks the worker how it is. An error other than errWorkerGone means that
// it hangs.
func (w *workerClient) ping() (*ipc.WorkerInfo, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), pingTimeout, fmt.Errorf("no answer within %s", pingTimeout))
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	go func() {
		if hang := w.awaitHang(ctx); hang != nil {
			giveUp(hang)
		}
	}()
	m, err := w.call(ctx, ipc.Request{Ping: true})
	return m.Info, err
}

// awaitHang looks at a worker that owes an answer, until it hangs or ctx ends.
func (w *workerClient) awaitHang(ctx context.Context) error {
	next := time.NewTimer(firstLook)
	defer next.Stop()
	heard := w.heard.Load()
	for looks := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
			next.Reset(hangInterval)
		}
		now, err := w.process.Activity()
		before := heard
		heard = w.heard.Load()
		talks := heard != before || w.hearing.Load()
		if looks++; err != nil || talks || !couldAnswer(now, w.processors) {
			looks = 0
		}
		if looks == hangLooks {
			return errHangs
		}
	}
}

// answered takes what a worker says of itself.
func (e *Engine) answered(w *workerClient, info *ipc.WorkerInfo) {
	e.mu.Lock()
	if e.status.PID != w.process.PID() { // it drains
		e.mu.Unlock()
		return
	}
	refused, heldBack := e.status.Refused, e.status.HeldBack
	e.status.Streams, e.status.Goroutines = info.Streams, info.Goroutines
	e.status.Refused, e.status.HeldBack = info.Refused, info.HeldBack
	ranOut := e.noteExhaustedLocked(info.Exhausted, time.Now().UTC())
	e.mu.Unlock()
	if ranOut != nil {
		e.deps.Log.Error("the worker has no file descriptor left", "error", ranOut)
		e.deps.Failed(Failure{Fault: ranOut})
	}
	if refused != info.Refused {
		e.deps.Log.Debug("streams are refused", "at_connection_limit", info.Refused.Connections, "at_address_limit", info.Refused.Addresses, "of_strangers", info.Refused.Strangers)
	}
	if heldBack != info.HeldBack {
		e.deps.Log.Debug("streams are held back at their rates", "seconds", info.HeldBack)
	}
}
