package xray

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"nodeagent/internal/logkey"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// know makes states of what the adopted workers run, before anything else is done with them. Parts
// that are as in to are taken from to, so that equal clients are neither read nor stored twice. A
// worker that does not answer is killed.
func (e *Engine) know(ctx context.Context, to state.State) {
	if e.worker != nil {
		e.knowOne(ctx, e.worker, to, func(s state.State) { e.serveAgain(e.worker, s) })
	}
	for _, w := range slices.Concat(e.drained, e.rest) {
		e.knowOne(ctx, w.workerClient, to, func(s state.State) { w.state = s })
	}
	// The daemon before was ended during a takeover, and to is what ran before: then the worker
	// before can serve, and no third one is needed.
	fits := func(w *drainedWorker) bool { return state.NeedsNewWorker(w.state, to) == "" }
	if i := slices.IndexFunc(e.rest, fits); i >= 0 && state.NeedsNewWorker(e.running, to) != "" {
		before := e.rest[i]
		e.rest[i] = &drainedWorker{e.worker, e.running}
		e.serveAgain(before.workerClient, before.state)
	}
}

// held are the bindings that the workers have which listen, and those of spares.
func (e *Engine) held() []state.Binding {
	held := append(state.BindingsOf(e.running), e.spares.bindings()...)
	for _, w := range e.drained { // its sockets of datagrams stay open for its connections
		for tag, in := range w.state.Inbounds {
			if in.OverQUIC() || in.BySource() {
				held = append(held, state.BindingsOf(state.State{Inbounds: map[string]state.Inbound{tag: in}})...)
			}
		}
	}
	for _, w := range e.rest {
		held = append(held, state.BindingsOf(w.state)...)
	}
	return held
}

func (e *Engine) knowOne(ctx context.Context, w *workerClient, to state.State, runs func(state.State)) {
	if w.adopted == nil {
		return
	}
	running := w.adopted
	w.adopted = nil
	ctx, cancel := context.WithTimeoutCause(ctx, opTimeout, fmt.Errorf("no answer within %s", opTimeout))
	defer cancel()
	s, err := w.stateOf(ctx, running, to)
	if err != nil {
		e.deps.Log.Error("ask an adopted worker what it runs, ending it", logkey.PID, w.process.PID(), logkey.Error, err)
		w.process.Kill()
	}
	runs(s)
}

// stateOf returns the state of a worker that runs what running says.
func (w *workerClient) stateOf(ctx context.Context, running *ipc.Running, to state.State) (state.State, error) {
	s := running.State
	inbounds := maps.Clone(s.Inbounds)
	if inbounds == nil {
		inbounds = map[string]state.Inbound{}
	}
	for tag := range running.Clients { // also of inbounds that are closed, and whose streams go on
		if _, listens := inbounds[tag]; !listens {
			inbounds[tag] = state.Inbound{Tag: tag}
		}
	}
	for tag, in := range inbounds {
		want := to.Inbounds[tag]
		if slices.Equal(in.Config, want.Config) && slices.Equal(in.Unattributed, want.Unattributed) {
			in = want
		}
		in.Clients = nil
		sum := running.Clients[tag]
		if sum == want.Clients.Sum() {
			in.Clients = want.Clients
		} else if sum.Count > 0 {
			var err error
			if in.Clients, err = w.clients(ctx, tag, want.Clients); err != nil {
				return s, err
			}
		}
		inbounds[tag] = in
	}
	s.Inbounds = inbounds
	return s, nil
}

// clients asks the worker for the clients of an inbound. Those that have the account of a client in
// want are complete; the others have no account, so that they differ from all clients.
func (w *workerClient) clients(ctx context.Context, tag string, want state.Clients) (clients state.Clients, err error) {
	for after := ""; ; {
		m, err := w.call(ctx, ipc.Request{Clients: &ipc.ClientsPage{Tag: tag, After: after}})
		if err != nil {
			return nil, err
		}
		for _, mark := range m.Clients {
			client := &state.Client{Email: mark.Email, Slot: mark.Slot}
			if known := want.Find(mark.Email); known != nil && known.Slot == mark.Slot && known.Mark() == mark.Mark {
				*client = *known
			}
			client.Limits, client.Group, client.Grant = mark.Limits, mark.Group, mark.Grant
			clients = append(clients, client)
			after = mark.Email
		}
		if len(m.Clients) < ipc.MaxClientsPage {
			return clients, nil
		}
	}
}
