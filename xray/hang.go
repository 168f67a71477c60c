package xray

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	pingInterval = 200 * time.Millisecond
	// A worker that leaves a ping without an answer hangs: once it was idle
	// stillLooks times in a row, stillInterval apart, for it has nothing to do but
	// to answer; or, where it is busy, after pingTimeout.
	stillInterval = 150 * time.Millisecond
	stillLooks    = 3
	pingTimeout   = 5 * time.Second
)

var errStandsStill = errors.New("it stands still and gives no answer")

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
func (w *workerClient) ping() (*WorkerInfo, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), pingTimeout, fmt.Errorf("no answer within %s", pingTimeout))
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	go func() {
		tick := time.NewTicker(stillInterval)
		defer tick.Stop()
		for looks := 0; looks < stillLooks; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if idle, err := w.process.Idle(); err == nil && idle {
				looks++
			} else {
				looks = 0
			}
		}
		giveUp(errStandsStill)
	}()
	m, err := w.call(ctx, Request{Ping: true})
	return m.Info, err
}

// answered takes what a worker says of itself.
func (e *Engine) answered(w *workerClient, info *WorkerInfo) {
	e.mu.Lock()
	if e.status.PID != w.process.PID() { // it drains
		e.mu.Unlock()
		return
	}
	refused, heldBack := e.status.Refused, e.status.HeldBack
	e.status.Streams, e.status.Goroutines = info.Streams, info.Goroutines
	e.status.Refused, e.status.HeldBack = info.Refused, info.HeldBack
	e.mu.Unlock()
	if refused != info.Refused {
		e.deps.Log.Debug("streams are refused", "at_connection_limit", info.Refused.Connections, "at_address_limit", info.Refused.Addresses, "of_strangers", info.Refused.Strangers)
	}
	if heldBack != info.HeldBack {
		e.deps.Log.Debug("streams are held back at their rates", "seconds", info.HeldBack)
	}
}
