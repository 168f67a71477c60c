package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"nodeagent/agent/identity"
)

// maxRefusal bounds the daemon's words in an error, in bytes.
const maxRefusal = 1000

// ask makes a call to the daemon of a runtime folder and decodes its JSON
// answer. It returns errNotRunning where no daemon answers.
func ask(ctx context.Context, dir, method, route string, answer any) error {
	return call(ctx, dir, method, route, nil, statusTimeout, answer)
}

// post sends a body, which is JSON or nil, to the daemon of a runtime folder. The daemon may
// ask Core before it answers. The errors are errNotRunning and, for a conflict,
// identity.ErrOtherCore.
func post(ctx context.Context, dir, route string, body []byte) error {
	var answer struct{}
	return call(ctx, dir, http.MethodPost, route, body, moveTimeout+statusTimeout, &answer)
}

func call(ctx context.Context, dir, method, route string, body []byte, timeout time.Duration, answer any) error {
	path := filepath.Join(dir, socketName)
	client := http.Client{Timeout: timeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, method, "http://node-agent"+route, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	resp, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (nothing answers at %s); start it with 'systemctl start node-agent' or 'node-agent run'", errNotRunning, path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("ask the daemon at %s: permission denied; run as the user of the daemon", path)
	case err != nil:
		return fmt.Errorf("ask the daemon at %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		words, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
		text := strings.TrimSpace(string(words))
		if resp.StatusCode == http.StatusConflict {
			return fmt.Errorf("%w%s", identity.ErrOtherCore, strings.TrimPrefix(text, identity.ErrOtherCore.Error()))
		}
		return fmt.Errorf("the daemon refuses: %s", text)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("ask the daemon at %s: %w", path, err)
	}
	return nil
}
