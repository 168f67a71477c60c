package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/cmd/node-core/internal/rendered"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
)

const (
	maxSmallBody = 64 << 10 // bytes
	maxBatchBody = 4 << 20  // bytes: some 30,000 usage rows
	maxKey       = 200      // bytes of an Idempotency-Key
)

// API serves the node routes. It uses the store and the hub, and the caller owns both; the
// store has to stay open until all requests are answered. The API starts no goroutine.
//
// All routes but register need an auth key (authenticated). A route checks the whole body
// before it changes anything, and each change is one transaction of the store. An answer of
// 2xx therefore means that everything in the body is on disk, and any other answer means that
// nothing is. A node that got no answer sends the same body with the same Idempotency-Key
// again, and corestore recognizes it.
//
// The documents in memory (package rendered) are made from the database, and made anew where they are
// lost.
type API struct {
	store *corestore.Store
	hub   *hub.Hub
	log   *slog.Logger
	// rendered makes configurations, and remembers what nodes hold.
	rendered *rendered.Renderer
	// storing has a slot for each node: while a batch of a node is stored, its other batches
	// wait, and those of other nodes come next.
	storing nodeLocks
	holds   holds
	// answering counts the answers with a document that are being written, by node, and each
	// may take answerTime.
	answering  nodeCounts
	answerTime time.Duration
	// stopping ends when Core stops: then held heartbeats are answered at once.
	stopping context.Context
}

// New makes the API. When stopping ends, held heartbeats are answered at once.
func New(stopping context.Context, store *corestore.Store, hub *hub.Hub, log *slog.Logger) *API {
	return &API{store: store, hub: hub, log: log, stopping: stopping, rendered: rendered.New(store), answerTime: defaultAnswerTime}
}

// Builds returns how many configurations were made since the API was.
func (a *API) Builds() int64 { return a.rendered.Builds() }

// Handler serves the routes.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range []struct {
		method, path string
		handler      http.Handler
	}{
		{http.MethodPost, wire.PathRegister, a.answer(a.register)},
		{http.MethodPost, wire.PathHeartbeat, a.answer(a.hold(a.authenticated(a.heartbeat)))},
		{http.MethodPost, wire.PathUsage, a.answer(a.authenticated(a.oneAtATime(a.usage)))},
		{http.MethodPost, wire.PathOutboundUsage, a.answer(a.authenticated(a.oneAtATime(a.outboundUsage)))},
		{http.MethodPost, wire.PathSessionEvents, a.answer(a.authenticated(a.oneAtATime(a.sessionEvents)))},
		{http.MethodPost, wire.PathApplied, a.answer(a.authenticated(a.applied))},
		{http.MethodPost, wire.PathError, a.answer(a.authenticated(a.oneAtATime(a.nodeError)))},
		{http.MethodPost, wire.PathStatus, a.answer(a.authenticated(a.oneAtATime(a.status)))},
		{http.MethodGet, wire.PathConfig, compressed(a.answer(a.authenticated(a.config)))},
	} {
		mux.Handle(route.method+" "+route.path, route.handler)
		mux.HandleFunc(route.path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", route.method)
			problem.New(http.StatusMethodNotAllowed, "method_not_allowed", "this route takes "+route.method).Write(w)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.New(http.StatusNotFound, "no_route", "this Core has no such route").Write(w)
	})
	return a.identified(mux)
}

// identified adds to each answer who this Core is.
func (a *API) identified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.identify(w)
		next.ServeHTTP(w, r)
	})
}

func (a *API) identify(w http.ResponseWriter) {
	core := a.store.Identity()
	w.Header().Set(wire.HeaderCoreID, core.ID)
	w.Header().Set(wire.HeaderCoreEpoch, strconv.FormatInt(core.Epoch, 10))
}

// request is one request to a route.
type request struct {
	*http.Request
	w              http.ResponseWriter
	nodeID         int64  // the node whose auth key the request has; 0 for register
	idempotencyKey string // Idempotency-Key; may be empty
}

// answer makes a handler of a route. It writes the value that the route returns as JSON, and
// an error as a problem. A route that has written its answer itself returns nil.
func (a *API) answer(route func(*request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Accept-Encoding", "gzip") // the compression that readBody accepts
		req := &request{Request: r, w: w, idempotencyKey: r.Header.Get(wire.HeaderIdempotencyKey)}
		var value any
		var err error
		if len(req.idempotencyKey) > maxKey {
			err = problem.New(http.StatusBadRequest, "invalid_idempotency_key", fmt.Sprintf("the Idempotency-Key has more than %d bytes", maxKey))
		} else {
			value, err = route(req)
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if value != nil {
			writeJSON(req, value)
		}
	}
}

// fail writes an error as the answer: a problem as it is, any other error as 503, which makes
// the node try again.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		a.log.Debug("request refused", logkey.Route, r.URL.Path, logkey.Status, p.Status, logkey.Code, p.Code, logkey.Detail, p.Detail)
		p.Write(w)
		return
	}
	if r.Context().Err() == nil { // the node is still connected: Core failed
		a.log.Error("route failed", logkey.Route, r.URL.Path, logkey.Error, err)
	}
	// A request whose context has ended is answered too. Over HTTP/1 net/http ends it after
	// any error of reading from the connection (connReader.handleReadErrorLocked in
	// net/http/server.go): also when the client closes only its sending side, and when the
	// body comes too slowly. Such a client still reads the answer. If nothing is written,
	// net/http sends 200, which acknowledges a batch that is not stored.
	w.Header().Set("Retry-After", "5")
	problem.New(http.StatusServiceUnavailable, "unavailable", "Core can't answer now; try again later").Write(w)
}

// authenticated runs the route only for requests with the auth key of a registered node.
func (a *API) authenticated(route func(*request) (any, error)) func(*request) (any, error) {
	return func(r *request) (any, error) {
		key := r.Header.Get(wire.HeaderAuthKey)
		if key == "" {
			return nil, problem.New(http.StatusUnauthorized, "no_key", "the header "+strings.ToLower(wire.HeaderAuthKey)+" is missing")
		}
		id, err := a.store.Authenticate(r.Context(), key)
		if errors.Is(err, corestore.ErrNotFound) {
			return nil, problem.New(http.StatusUnauthorized, "unknown_key", "no node of this Core has this key: the node was removed or registered again")
		} else if err != nil {
			return nil, err
		}
		r.nodeID = id
		return route(r)
	}
}
