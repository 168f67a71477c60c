package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
)

const (
	maxSmallBody = 64 << 10 // bytes
	maxBatchBody = 4 << 20  // bytes: some 30,000 usage rows
	maxKey       = 200      // characters of an Idempotency-Key
)

// API answers the node routes.
type API struct {
	store *corestore.Store
	hub   *hub.Hub
	log   *slog.Logger
	cache configCache
	// stopping ends the held heartbeats, so that Core need not wait for them.
	stopping context.Context
}

// New makes the API. Held heartbeats are answered when stopping ends.
func New(stopping context.Context, store *corestore.Store, hub *hub.Hub, log *slog.Logger) *API {
	return &API{store: store, hub: hub, log: log, stopping: stopping}
}

// Handler serves the routes.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.PathRegister, a.answer(a.register))
	mux.HandleFunc("POST "+wire.PathHeartbeat, a.answer(a.authenticated(a.heartbeat)))
	mux.HandleFunc("POST "+wire.PathUsage, a.answer(a.authenticated(a.usage)))
	mux.HandleFunc("POST "+wire.PathOutboundUsage, a.answer(a.authenticated(a.outboundUsage)))
	mux.HandleFunc("POST "+wire.PathSessionEvents, a.answer(a.authenticated(a.sessionEvents)))
	mux.HandleFunc("POST "+wire.PathApplied, a.answer(a.authenticated(a.applied)))
	mux.HandleFunc("POST "+wire.PathError, a.answer(a.authenticated(a.nodeError)))
	mux.Handle("GET "+wire.PathConfig, compressed(a.answer(a.authenticated(a.config))))
	for path, method := range map[string]string{
		wire.PathRegister: http.MethodPost, wire.PathHeartbeat: http.MethodPost, wire.PathUsage: http.MethodPost,
		wire.PathOutboundUsage: http.MethodPost, wire.PathSessionEvents: http.MethodPost, wire.PathApplied: http.MethodPost,
		wire.PathError: http.MethodPost, wire.PathConfig: http.MethodGet,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", method)
			problem.New(http.StatusMethodNotAllowed, "method_not_allowed", "this route takes "+method).Write(w)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.New(http.StatusNotFound, "no_route", "this Core has no such route").Write(w)
	})
	return mux
}

// request is one call, and for all routes but register, of a known node.
type request struct {
	*http.Request
	w              http.ResponseWriter
	nodeID         int64
	idempotencyKey string // Idempotency-Key; may be empty
}

// answer runs a route and writes what it returns: a value as JSON, nothing
// where the route wrote itself, or an error as a problem.
func (a *API) answer(route func(*request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Accept-Encoding", "gzip") // what bodies may be packed as
		req := &request{Request: r, w: w, idempotencyKey: r.Header.Get(wire.HeaderIdempotencyKey)}
		var value any
		var err error
		if len(req.idempotencyKey) > maxKey {
			err = problem.New(http.StatusBadRequest, "invalid_idempotency_key", fmt.Sprintf("the Idempotency-Key has more than %d characters", maxKey))
		} else {
			value, err = route(req)
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if value != nil {
			writeJSON(w, value)
		}
	}
}

func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		a.log.Debug("refused", "route", r.URL.Path, "status", p.Status, "code", p.Code, "detail", p.Detail)
		p.Write(w)
		return
	}
	if r.Context().Err() == nil { // the node is still connected: Core failed
		a.log.Error("answer", "route", r.URL.Path, "error", err)
	}
	// A request whose context has ended is answered too. Over HTTP/1 net/http ends it after
	// any error of reading from the connection (connReader.handleReadErrorLocked in
	// net/http/server.go): also when the client closes only its sending side, and when the
	// body comes too slowly. Such a client still reads the answer. If nothing is written,
	// net/http sends 200, which acknowledges a batch that is not stored.
	w.Header().Set("Retry-After", "5")
	problem.New(http.StatusServiceUnavailable, "unavailable", "Core can't answer now; try again").Write(w)
}

// authenticated lets only registered nodes through.
func (a *API) authenticated(route func(*request) (any, error)) func(*request) (any, error) {
	return func(r *request) (any, error) {
		key := r.Header.Get(wire.HeaderAuthKey)
		if key == "" {
			return nil, problem.New(http.StatusUnauthorized, "no_key", "the header "+strings.ToLower(wire.HeaderAuthKey)+" is missing")
		}
		id, err := a.store.Authenticate(r.Context(), key)
		if errors.Is(err, corestore.ErrNotFound) {
			return nil, problem.New(http.StatusUnauthorized, "unknown_key", "the key is not of a node of this Core; the node was removed or registered anew")
		} else if err != nil {
			return nil, err
		}
		r.nodeID = id
		return route(r)
	}
}
