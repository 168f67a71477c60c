package xray

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"nodeagent/internal/supervise"
)

const (
	pingInterval = 200 * time.Millisecond
	// A worker that leaves a ping without an answer hangs: once it stood still, or
	// span, at hangLooks looks in a row, hangInterval apart; or, where it does
	// something else, after pingTimeout.
	hangInterval = 150 * time.Millisecond
	firstLook    = 20 * time.Millisecond // most answers come before
	hangLooks    = 3
	pingTimeout  = 5 * time.Second
	// What a worker that spins has to do with the kernel all the same, in that time:
	// Go's runtime has its timers, and the kernel rounds. Others on the host may send
	// a datagram.
	spinSystem    = 10 * time.Millisecond
	spinCalls     = 3
	spinDatagrams = 3
)

var (
	errStandsStill = errors.New("it stands still and gives no answer")
	errSpins       = errors.New("it spins and gives no answer")
)

// hangs tells from looks at a worker that owes an answer, hangLooks and the one before,
// whether it hangs, and how.
func hangs(looks []supervise.Activity) error {
	before, now := looks[0], looks[len(looks)-1]
	if !slices.ContainsFunc(looks[1:], func(a supervise.Activity) bool { return !a.Asleep }) {
		return errStandsStill
	}
	if spins(before, now) {
		return errSpins
	}
	return nil
}

// spins tells whether a process computed between two looks and had nothing to do with
// anybody. No work of a proxy's goes without calls or datagrams, however much of it
// there is; where they can't be known, nothing is said.
func spins(before, now supervise.Activity) bool {
	if before.Calls < 0 || now.Calls < 0 || before.Datagrams < 0 || now.Datagrams < 0 {
		return false
	}
	return now.User-before.User >= hangLooks*hangInterval/2 && now.System-before.System <= spinSystem &&
		now.Calls-before.Calls <= spinCalls && now.Datagrams-before.Datagrams <= spinDatagrams
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
func (w *workerClient) ping() (*WorkerInfo, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), pingTimeout, fmt.Errorf("no answer within %s", pingTimeout))
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	go func() {
		if hang := w.awaitHang(ctx); hang != nil {
			giveUp(hang)
		}
	}()
	m, err := w.call(ctx, Request{Ping: true})
	return m.Info, err
}

// awaitHang looks at a worker that owes an answer, until it hangs or ctx ends.
func (w *workerClient) awaitHang(ctx context.Context) error {
	next := time.NewTimer(firstLook)
	defer next.Stop()
	var looks []supervise.Activity
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
			next.Reset(hangInterval)
		}
		now, err := w.process.Activity()
		if looks = append(looks, now); err != nil {
			looks = nil
		}
		if len(looks) > hangLooks {
			if err := hangs(looks); err != nil {
				return err
			}
			looks = looks[1:]
		}
	}
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
