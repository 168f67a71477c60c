package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/cmd/node-core/internal/problem"
)

// Server answers the calls. It uses the store and the hub, and the caller owns both. It starts
// no goroutine.
//
// A call that changes nodes' configurations first commits the change and then wakes those
// nodes' heartbeats. If Core ends between the two, its heartbeats end with it, and the nodes
// ask again.
//
// Lock order: changing first, then the store's write connection. The hub's mutex is taken only
// after both are free.
type Server struct {
	store     *corestore.Store
	hub       *hub.Hub
	publicURL string // with which nodes reach Core
	pin       string // of Core's certificate, see certs.LoadOrCreate; empty for a certificate of a public authority
	log       *slog.Logger

	// stopping ends when Core stops: then calls that wait for nodes are answered at once.
	stopping context.Context

	// changing is held while what nodes serve is changed, from the check until it is stored.
	changing sync.Mutex
}

// NewServer makes a server. publicURL and pin go into join tokens. When stopping ends, calls that
// wait for nodes are answered at once.
func NewServer(stopping context.Context, store *corestore.Store, hub *hub.Hub, publicURL, pin string, log *slog.Logger) *Server {
	return &Server{store: store, hub: hub, publicURL: publicURL, pin: pin, log: log, stopping: stopping}
}

// Handler serves POST /CALL. The JSON body has the arguments, and the JSON answer has the
// result or a problem.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for call, handle := range map[Call]http.HandlerFunc{
		NodeAdd:             serve(s, s.nodeAdd),
		NodeCode:            serve(s, s.nodeCode),
		NodeList:            serve(s, s.nodeList),
		NodeShow:            serve(s, s.nodeShow),
		NodeRemove:          serve(s, s.nodeRemove),
		NodeMTProto:         serveChange(s, s.nodeMTProto),
		NodeRotate:          serve(s, s.nodeRotate),
		Announce:            serve(s, s.announce),
		ProtocolAdd:         serveChange(s, s.protocolAdd),
		ProtocolList:        serve(s, s.protocolList),
		ProtocolRemove:      serveChange(s, s.protocolRemove),
		OutboundAdd:         serveChange(s, s.outboundAdd),
		OutboundList:        serve(s, s.outboundList),
		OutboundRemove:      serveChange(s, s.outboundRemove),
		UserAdd:             serve(s, s.userAdd),
		UserList:            serve(s, s.userList),
		SubscriptionAdd:     serveChange(s, s.subscriptionAdd),
		SubscriptionEdit:    serveChange(s, s.subscriptionEdit),
		SubscriptionRotate:  serveChange(s, s.subscriptionRotate),
		SubscriptionReset:   serveChange(s, s.subscriptionReset),
		SubscriptionShow:    serve(s, s.subscriptionShow),
		SubscriptionList:    serve(s, s.subscriptionList),
		SubscriptionDisable: serveChange(s, s.subscriptionDisable),
		SubscriptionEnable:  serveChange(s, s.subscriptionEnable),
		SubscriptionRemove:  serveChange(s, s.subscriptionRemove),
		UserRemove:          serveChange(s, s.userRemove),
		UserShow:            serve(s, s.userShow),
		UserEdit:            serveChange(s, s.userEdit),
		UserErase:           serveChange(s, s.userErase),
		GroupAdd:            serve(s, s.groupAdd),
		GroupList:           serve(s, s.groupList),
		GroupShow:           serve(s, s.groupShow),
		GroupEdit:           serveChange(s, s.groupEdit),
		GroupRemove:         serve(s, s.groupRemove),
		PlanAdd:             serve(s, s.planAdd),
		PlanList:            serve(s, s.planList),
		PlanShow:            serve(s, s.planShow),
		PlanEdit:            serve(s, s.planEdit),
		PlanRemove:          serve(s, s.planRemove),
		NodeErrors:          serve(s, s.nodeErrors),
		Usage:               serve(s, s.usage),
		Events:              serve(s, s.events),
		Wait:                serve(s, s.wait),
	} {
		mux.HandleFunc("POST /"+string(call), handle)
	}
	return mux
}

// serve makes a handler of a call: it decodes the arguments, runs the call and writes the result.
func serve[Args, Answer any](s *Server, run func(context.Context, Args) (Answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		call := strings.TrimPrefix(r.URL.Path, "/")
		var args Args
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil {
			problem.New(http.StatusBadRequest, "invalid_json", fmt.Sprintf("read the arguments of %s: %v", call, err)).Write(w)
			return
		}
		answer, err := run(r.Context(), args)
		if err != nil {
			s.fail(w, call, err)
			return
		}
		body, err := json.Marshal(answer)
		if err != nil {
			s.fail(w, call, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // fails only where the command was ended
	}
}

// badInput is a mistake of the operator, who gets the error's text.
type badInput struct{ error }

// fail writes the error of a call as a problem.
func (s *Server) fail(w http.ResponseWriter, call string, err error) {
	_, bad := errors.AsType[badInput](err)
	switch {
	case errors.Is(err, corestore.ErrNotFound):
		problem.New(http.StatusNotFound, "not_found", err.Error()).Write(w)
	case errors.Is(err, corestore.ErrExists):
		problem.New(http.StatusConflict, "exists", err.Error()).Write(w)
	case errors.Is(err, corestore.ErrInUse):
		problem.New(http.StatusConflict, "in_use", err.Error()).Write(w)
	case bad:
		problem.New(http.StatusBadRequest, "bad_input", err.Error()).Write(w)
	default:
		s.log.Error("call failed", "call", call, "error", err)
		problem.New(http.StatusInternalServerError, "internal", fmt.Sprintf("%s failed: %v", call, err)).Write(w)
	}
}
