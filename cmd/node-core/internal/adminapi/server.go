package adminapi

import (
	"context"
	"log/slog"
	"net/http"
	"sync"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/coreapi"
)

// Server serves the API. It uses the store and the hub, and the caller owns both. It starts
// no goroutine.
//
// A request that changes nodes' configurations first commits the change and then wakes those
// nodes' heartbeats. If Core ends between the two, its heartbeats end with it, and the nodes
// ask again.
//
// Lock order: changing first, then the store's write connection. The hub's mutex is taken only
// after both are free.
type Server struct {
	store     *corestore.Store
	hub       *hub.Hub
	publicURL string   // with which nodes reach Core
	linksURL  string   // where applications fetch subscriptions
	mirrors   []string // further addresses of the same
	pin       string   // of Core's certificate, see certs.LoadOrCreate; empty for a certificate of a public authority
	log       *slog.Logger
	routes    http.Handler // without the look at who asks
	nouns     []string     // see Nouns

	// stopping ends when Core stops: then requests that wait for nodes are answered at once.
	stopping context.Context

	webhooks Webhooks
	files    LinkFiles

	streams streamsServed
	plans   linkPlans

	// changing is held while what nodes serve is changed, from the check until it is stored.
	changing sync.Mutex
}

// NewServer makes a server. publicURL and pin go into join tokens. When stopping ends, requests
// that wait for nodes are answered at once.
func NewServer(stopping context.Context, store *corestore.Store, hub *hub.Hub, publicURL, pin string, log *slog.Logger) *Server {
	s := &Server{store: store, hub: hub, publicURL: publicURL, linksURL: publicURL, pin: pin, log: log, stopping: stopping, webhooks: noWebhooks{}, files: noFiles{}}
	s.routes, s.nouns = newRoutes(s)
	return s
}

// Nouns returns the first element of each path of the API, below coreapi.Prefix.
func (s *Server) Nouns() []string { return s.nouns }

// LinksAt says under which address applications fetch subscriptions, and under which others they can,
// each without a slash at the end.
// It is Core's own public address until then. It is called before the first request.
func (s *Server) LinksAt(url string, mirrors ...string) { s.linksURL, s.mirrors = url, mirrors }

// SocketHandler serves the API for the unix socket. A process that can open the socket may do
// everything.
func (s *Server) SocketHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.routes.ServeHTTP(w, r.WithContext(withCaller(r.Context(), caller{name: socketCaller, role: coreapi.Owner})))
	})
}

// Warned adds to each answer of next what is wrong with Core as a whole, which trouble says;
// nothing while that is empty.
func Warned(next http.Handler, trouble func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := trouble(); text != "" {
			w.Header().Set(coreapi.HeaderWarning, printable(text))
		}
		next.ServeHTTP(w, r)
	})
}
