package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreapi"
	"nodeagent/internal/logkey"
)

// served is a server and where it listens.
type served struct {
	server   *http.Server
	listener net.Listener
}

// servers returns the servers for the network: of the node routes, and of the admin API, which
// is beside them unless --api-listen says another place.
func (f serveFlags) servers(tlsConfig *tls.Config, listener net.Listener, sockets *handover, nodes, api http.Handler, log *slog.Logger) ([]served, error) {
	server := func(handler http.Handler) *http.Server { return newServer(handler, tlsConfig, log) }
	switch f.apiListen {
	case "":
		both := http.NewServeMux()
		both.Handle("/", nodes)
		both.Handle(coreapi.Prefix+"/", api)
		return []served{{server(both), listener}}, nil
	case apiNowhere:
		return []served{{server(nodes), listener}}, nil
	}
	own, err := sockets.listen(apiSocket, f.apiListen)
	if err != nil {
		return nil, fmt.Errorf("listen for the admin API: %w; choose another address or port with --api-listen", err)
	}
	log.Info("the admin API has an address of its own", logkey.Listen, own.Addr().String())
	return []served{{server(nodes), listener}, {server(api), own}}, nil
}

// serveUntil serves all until ctx ends, or one of them does.
func serveUntil(ctx context.Context, all []served) (err error) {
	failed := make(chan error, len(all))
	var encrypted []*tlsListener
	for _, s := range all {
		if s.server.TLSConfig != nil {
			l := newTLSListener(s.listener, s.server)
			encrypted = append(encrypted, l)
			s.listener = l
		}
		go func() { failed <- s.server.Serve(s.listener) }()
	}
	notify(daemon.SdNotifyReady)
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	draining := make(chan error, len(encrypted))
	for _, l := range encrypted {
		go func() { draining <- l.drain(stopping) }()
	}
	for range encrypted {
		err = errors.Join(err, <-draining)
	}
	for _, s := range all {
		err = errors.Join(err, s.server.Shutdown(stopping))
	}
	for _, l := range encrypted {
		err = errors.Join(err, l.wait(stopping))
	}
	return err
}

// tellPanics answers a request that panics, and logs where.
func tellPanics(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				// The path itself can have a secret: the token of a link, or a UUID.
				log.Error("panic; please report it", logkey.Route, cmp.Or(r.Pattern, "unknown"), logkey.Panic, p, logkey.Stack, string(debug.Stack()))
				problem.New(http.StatusInternalServerError, "internal", "Core failed over this request; its log says where").Write(w)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

const (
	// writeTimeout bounds how long a client may take to read an answer, on top of what a request of the
	// admin API and a stream of events say for themselves. A client that does not read holds the answer in memory.
	writeTimeout = 10 * time.Minute
	// headerBytes bounds the header of a request, which is kept before anything is known of the client.
	// Nodes, applications and browsers send less than 8 KB.
	headerBytes = 32 << 10
	// headersKept is how many bytes of its answers' headers the server remembers to name them to the client
	// again (RFC 7541, 4.1): none, since an entry takes more. Each answer has another Date, which would fill 9 KB for
	// each node that is connected. The headers of requests are remembered as net/http does: a client refers to
	// earlier ones before it has heard how many the server remembers.
	headersKept = 1
)

// newServer returns a server for strangers, without an address. tlsConfig is nil for plain HTTP.
func newServer(handler http.Handler, tlsConfig *tls.Config, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: tellPanics(handler, log), TLSConfig: tlsConfig.Clone(), // a server changes its own
		ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		HTTP2:          &http.HTTP2Config{MaxEncoderHeaderTableSize: headersKept},
		MaxHeaderBytes: headerBytes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
