package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/cmd/node-core/internal/problem"
)

// Server answers the calls.
type Server struct {
	store     *corestore.Store
	hub       *hub.Hub
	publicURL string // under which nodes reach Core
	pin       string // of Core's certificate; empty where authorities vouch for it
	log       *slog.Logger

	addingProtocol sync.Mutex // held from the look at the taken ports to the row that takes one
}

// NewServer makes a server of calls.
func NewServer(store *corestore.Store, hub *hub.Hub, publicURL, pin string, log *slog.Logger) *Server {
	return &Server{store: store, hub: hub, publicURL: publicURL, pin: pin, log: log}
}

// Handler serves POST /CALL with the arguments as its JSON body.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for call, handle := range map[Call]http.HandlerFunc{
		NodeAdd:             serve(s, s.nodeAdd),
		NodeCode:            serve(s, s.nodeCode),
		NodeList:            serve(s, s.nodeList),
		NodeShow:            serve(s, s.nodeShow),
		NodeRemove:          serve(s, s.nodeRemove),
		NodeMTProto:         serve(s, s.nodeMTProto),
		ProtocolAdd:         serve(s, s.protocolAdd),
		ProtocolList:        serve(s, s.protocolList),
		ProtocolRemove:      serve(s, s.protocolRemove),
		OutboundAdd:         serve(s, s.outboundAdd),
		OutboundList:        serve(s, s.outboundList),
		OutboundRemove:      serve(s, s.outboundRemove),
		UserAdd:             serve(s, s.userAdd),
		UserList:            serve(s, s.userList),
		SubscriptionAdd:     serve(s, s.subscriptionAdd),
		SubscriptionShow:    serve(s, s.subscriptionShow),
		SubscriptionList:    serve(s, s.subscriptionList),
		SubscriptionDisable: serve(s, s.subscriptionDisable),
		SubscriptionEnable:  serve(s, s.subscriptionEnable),
		SubscriptionRemove:  serve(s, s.subscriptionRemove),
		UserRemove:          serve(s, s.userRemove),
		NodeErrors:          serve(s, s.nodeErrors),
		Usage:               serve(s, s.usage),
		Events:              serve(s, s.events),
	} {
		mux.HandleFunc("POST /"+string(call), handle)
	}
	return mux
}

// serve decodes the arguments, runs the call and writes its answer.
func serve[Args, Answer any](s *Server, call func(context.Context, Args) (Answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var args Args
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil {
			problem.New(http.StatusBadRequest, "invalid_json", err.Error()).Write(w)
			return
		}
		answer, err := call(r.Context(), args)
		if err != nil {
			s.fail(w, err)
			return
		}
		body, err := json.Marshal(answer)
		if err != nil {
			s.fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // the command has gone, then
	}
}

// badInput is an operator's mistake, to be told in its own words.
type badInput struct{ error }

func (s *Server) fail(w http.ResponseWriter, err error) {
	_, bad := errors.AsType[badInput](err)
	switch {
	case errors.Is(err, corestore.ErrNotFound):
		problem.New(http.StatusNotFound, "not_found", err.Error()).Write(w)
	case errors.Is(err, corestore.ErrExists):
		problem.New(http.StatusConflict, "exists", err.Error()).Write(w)
	case bad:
		problem.New(http.StatusBadRequest, "bad_input", err.Error()).Write(w)
	default:
		s.log.Error("admin call", "error", err)
		problem.New(http.StatusInternalServerError, "internal", fmt.Sprintf("Core could not do it: %v", err)).Write(w)
	}
}
