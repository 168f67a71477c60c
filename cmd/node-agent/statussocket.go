package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"nodeagent/agent"
	"nodeagent/agent/identity"
	"nodeagent/internal/logkey"
	"nodeagent/internal/secret"
	"nodeagent/store"
)

const (
	socketName    = "agent.sock"
	statusTimeout = 5 * time.Second
)

// serveStatus answers `node-agent status` and `node-agent outbox` on a unix
// socket that the owner of the runtime folder alone can reach.
func serveStatus(dir string, a *agent.Agent, db *store.Store, node *identity.Node, log *slog.Logger) (stop func(), err error) {
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier run: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for status: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for status: %w", err), listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		status, err := a.Status()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		id := node.Identity()
		status.Version, status.NodeID, status.Core.URL, status.Core.Identity = version, id.NodeID, secret.URL(id.CoreURL), id.Core
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(status); err != nil {
			log.Debug("answer status", logkey.Error, err)
		}
	})
	serveOutbox(mux, db)
	serveIdentity(mux, node)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: statusTimeout}
	go func() {
		if err := server.Serve(strangersOnly{listener}); !errors.Is(err, http.ErrServerClosed) {
			log.Error("status socket ended", logkey.Error, err)
		}
	}()
	return func() { _ = server.Close() }, nil
}

// askStatus returns errNotRunning where no daemon answers.
func askStatus(ctx context.Context, dir string) (status agent.Status, err error) {
	err = ask(ctx, dir, http.MethodGet, "/status", &status)
	return status, err
}
