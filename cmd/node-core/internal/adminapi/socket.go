package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"nodeagent/cmd/node-core/internal/problem"
)

const (
	socketName  = "admin.sock"
	callTimeout = 30 * time.Second
)

// errNotRunning means that no Core serves the data folder.
var errNotRunning = errors.New("node-core does not run in this data folder; start it with 'node-core serve'")

// Listen opens the socket in the data folder, with mode 0600. A socket that an earlier Core has
// left is removed. If another Core answers on it, Listen fails, so that one data folder never
// has two.
func Listen(ctx context.Context, dir string) (net.Listener, error) {
	path := filepath.Join(dir, socketName)
	if conn, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("another node-core runs in %s; stop it, or give this one another --data-dir", dir)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier run: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for commands: %w", err), listener.Close())
	}
	return listener, nil
}

// headerWarning is a header of every answer. It says what is wrong with Core as a whole.
const headerWarning = "Node-Core-Warning"

// Warned adds to each answer of next what is wrong with Core as a whole, which trouble says;
// nothing while that is empty.
func Warned(next http.Handler, trouble func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := trouble(); text != "" {
			w.Header().Set(headerWarning, text)
		}
		next.ServeHTTP(w, r)
	})
}

// Do sends a call to the Core that runs in the data folder dir and decodes its JSON answer into
// answer. An error that Core answers is a *problem.Problem. warned is called for each warning:
// about Core as a whole, and about what the call has changed. The Change is empty for a call
// that changes no node.
func Do(ctx context.Context, dir string, call Call, args, answer any, warned func(text string)) (change Change, _ error) {
	body, err := json.Marshal(args)
	if err != nil {
		return change, fmt.Errorf("encode %s: %w", call, err)
	}
	timeout := callTimeout
	if wait, ok := args.(WaitArgs); ok {
		timeout += wait.Wait
	}
	client := http.Client{Timeout: timeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, socketName))
		},
	}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node-core/"+string(call), bytes.NewReader(body))
	if err != nil {
		return change, fmt.Errorf("call %s: %w", call, err)
	}
	resp, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return change, fmt.Errorf("%w (%s)", errNotRunning, dir)
	case errors.Is(err, fs.ErrPermission):
		return change, fmt.Errorf("reach node-core in %s: permission denied; run as the user that owns the data folder", dir)
	case err != nil:
		return change, fmt.Errorf("reach node-core in %s: %w", dir, err)
	}
	defer resp.Body.Close()
	for _, text := range resp.Header.Values(headerWarning) {
		warned(text)
	}
	if resp.StatusCode != http.StatusOK {
		var p problem.Problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			return change, fmt.Errorf("call %s: node-core answered %s", call, resp.Status)
		}
		return change, &p
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return change, fmt.Errorf("read the answer of %s: %w", call, err)
	}
	if raw := resp.Header.Get(headerChange); raw != "" { // a Core of an older version sends none
		if err := json.Unmarshal([]byte(raw), &change); err != nil {
			return change, fmt.Errorf("read what %s has changed: %w", call, err)
		}
	}
	return change, nil
}
