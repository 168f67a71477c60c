package xray

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
	"nodeagent/xray/ipc"
)

const (
	pingInterval = 200 * time.Millisecond
	// A worker that does not answer a ping hangs in two cases. Either hangLooks looks in a
	// row, hangInterval apart, find that it has an unused processor, on which it could have
	// answered. Or pingTimeout has passed, and it has used as much processor time as all its processors
	// have in pingTimeout: on a host where others want the processors too, that takes longer. Both begin
	// anew when it sends another message. It has starvedTimeout in any case.
	hangInterval   = 150 * time.Millisecond
	firstLook      = 20 * time.Millisecond // most answers arrive earlier
	hangLooks      = 4
	pingTimeout    = 5 * time.Second
	starvedTimeout = 30 * time.Second
)

var (
	errHangs   = errors.New("it does not answer although it has an unused processor")
	errBusy    = fmt.Errorf("no answer within %s of the time of all its processors", pingTimeout)
	errStarved = fmt.Errorf("no answer within %s", starvedTimeout)
)

// couldAnswer tells whether a worker with that many processors has an unused one, and no
// thread that the kernel holds back, for example for swap. Otherwise the goroutine that
// answers pings may have to wait for its turn, and a missing answer proves nothing.
func couldAnswer(now supervise.Activity, processors int) bool {
	return now.Held == 0 && now.Running < processors
}

// watch pings a worker until the worker ends, also while it executes an operation. It kills
// a worker that hangs.
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
			e.deps.Log.Error("the worker hangs, ending it", logkey.PID, w.process.PID(), logkey.Error, err)
			w.hang.Store(err)
			w.process.Kill()
			return
		}
		e.answered(w, info)
	}
}

// ping asks the worker for its WorkerInfo. An error other than errWorkerGone means that the
// worker hangs.
func (w *workerClient) ping() (*ipc.WorkerInfo, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), starvedTimeout, errStarved)
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

// awaitHang watches the threads of a worker that has not answered a ping yet. It returns
// errHangs or errBusy when the worker hangs, and nil when ctx ends. The wait begins anew with each other
// message that the worker sends.
func (w *workerClient) awaitHang(ctx context.Context) error {
	next := time.NewTimer(firstLook)
	defer next.Stop()
	silent := silence{began: time.Now()}
	var errUsed error
	silent.used, errUsed = w.process.ProcessorTime()
	heard := w.heard.Load()
	for looks := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
			next.Reset(hangInterval)
		}
		activity, err := w.process.Activity()
		before := heard
		heard = w.heard.Load()
		talks := heard != before || w.hearing.Load()
		if looks++; err != nil || talks || !couldAnswer(activity, w.processors) {
			looks = 0
		}
		if looks == hangLooks {
			return errHangs
		}
		used, err := w.process.ProcessorTime()
		if err == nil && errUsed == nil && silent.tooLong(time.Now(), used, talks, w.processors) {
			return errBusy
		}
	}
}

// silence is when a worker sent nothing any more, and how much processor time it had used by then.
type silence struct {
	began time.Time
	used  time.Duration
}

// tooLong reports whether a worker with that many processors, which has used so much processor time by
// now, had time enough to answer. Where it talks, the silence begins anew.
func (s *silence) tooLong(now time.Time, used time.Duration, talks bool, processors int) bool {
	if talks {
		*s = silence{now, used}
	}
	return now.Sub(s.began) >= pingTimeout && used-s.used >= pingTimeout*time.Duration(max(processors, 1))
}

// answered puts the answer to a ping into the status. It ignores the answer of a worker that
// does not serve.
func (e *Engine) answered(w *workerClient, info *ipc.WorkerInfo) {
	e.mu.Lock()
	if e.status.PID != w.process.PID() { // w drains
		e.mu.Unlock()
		return
	}
	refused, heldBack := e.status.Refused, e.status.HeldBack
	e.status.Streams, e.status.Goroutines = info.Streams, info.Goroutines
	e.status.Refused, e.status.HeldBack = info.Refused, info.HeldBack
	e.status.RefusedConnections = info.RefusedConnections
	turnedAway := e.turnedAway.due(w.process.PID(), time.Now(), info.RefusedConnections)
	ranOut := e.noteExhaustedLocked(info.Exhausted, time.Now().UTC())
	e.mu.Unlock()
	if ranOut != nil {
		e.deps.Log.Error("the worker has no file descriptor left", logkey.Error, ranOut)
		e.deps.Failed(Failure{Fault: ranOut})
	}
	for _, tag := range slices.Sorted(maps.Keys(turnedAway)) {
		e.deps.Log.Info("connections were refused: garbage, wrong credentials, scanners", logkey.Inbound, cmp.Or(tag, "any over HTTP"), logkey.Connections, turnedAway[tag])
	}
	if refused != info.Refused {
		e.deps.Log.Debug("streams are refused", logkey.AtConnectionLimit, info.Refused.Connections, logkey.AtAddressLimit, info.Refused.Addresses, logkey.OfStrangers, info.Refused.Strangers)
	}
	if heldBack != info.HeldBack {
		e.deps.Log.Debug("streams are held back at their rates", logkey.Seconds, info.HeldBack)
	}
}
