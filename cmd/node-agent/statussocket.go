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
	"syscall"
	"time"

	"nodeagent/agent"
	"nodeagent/store"
)

const (
	socketName    = "agent.sock"
	statusTimeout = 5 * time.Second
)

// serveStatus answers `node-agent status` on a unix socket that the owner of
// the runtime folder alone can reach.
func serveStatus(dir string, a *agent.Agent, id store.Identity, log *slog.Logger) (stop func(), err error) {
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
		status.Version, status.NodeID, status.Core.URL = version, id.NodeID, id.CoreURL
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(status); err != nil {
			log.Debug("answer status", "error", err)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: statusTimeout}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("status socket ended", "error", err)
		}
	}()
	return func() { _ = server.Close() }, nil
}

// askStatus returns errNotRunning where no daemon answers.
func askStatus(ctx context.Context, dir string) (agent.Status, error) {
	var status agent.Status
	path := filepath.Join(dir, socketName)
	client := http.Client{Timeout: statusTimeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node-agent/status", nil)
	if err != nil {
		return status, fmt.Errorf("ask the daemon: %w", err)
	}
	resp, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return status, fmt.Errorf("%w (nothing answers at %s); start it with 'systemctl start node-agent' or 'node-agent run'", errNotRunning, path)
	case errors.Is(err, fs.ErrPermission):
		return status, fmt.Errorf("ask the daemon at %s: permission denied; run as the user of the daemon", path)
	case err != nil:
		return status, fmt.Errorf("ask the daemon at %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return status, fmt.Errorf("ask the daemon at %s: it answered %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return status, fmt.Errorf("ask the daemon at %s: %w", path, err)
	}
	return status, nil
}
