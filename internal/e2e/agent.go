package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Agent is a node-agent with its own state folder, runtime folder and configuration.
type Agent struct {
	*process
	path string
	dir  string
}

// quickConfig shortens the agent's intervals, so that tests need not wait for them.
const quickConfig = `
log_level = "debug"
[heartbeat]
interval = "200ms"
[accounting]
interval = "1s"
session_linger = "1s"
`

// NewAgent registers an agent whose files are in dir. config is added to its configuration
// file. It does not start the daemon.
func NewAgent(ctx context.Context, p Programs, dir string, config string, register ...string) (*Agent, error) {
	a := &Agent{path: p.Agent, dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make agent's folder: %w", err)
	}
	if !p.Older {
		config = boundOrphans(openLoopback(config))
	}
	if err := os.WriteFile(a.file("config.toml"), []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write agent's configuration: %w", err)
	}
	args := append([]string{"register", "--config", a.file("config.toml"), "--state-dir", a.file("state")}, register...)
	if _, stderr, err := output(ctx, p.Agent, args...); err != nil {
		return nil, fmt.Errorf("register: %w: %s", err, stderr)
	}
	return a, nil
}

// boundOrphans adds to a configuration, which has a part for Xray, that a worker of a test that was
// killed ends soon.
func boundOrphans(config string) string {
	if strings.Contains(config, "orphan_timeout") {
		return config
	}
	return strings.Replace(config, "[xray]\n", "[xray]\norphan_timeout = \"2m\"\n", 1)
}

// openLoopback adds to a configuration that clients may reach loopback, where the targets of
// tests listen. A configuration with client_networks stays as it is.
func openLoopback(config string) string {
	const part, line = "[xray]\n", "client_networks = [\"127.0.0.0/8\", \"::1\"]\n"
	switch {
	case strings.Contains(config, "client_networks"):
		return config
	case strings.Contains(config, part):
		return strings.Replace(config, part, part+line, 1)
	}
	return config + "\n" + part + line
}

func (a *Agent) file(name string) string { return filepath.Join(a.dir, name) }

// Start starts the daemon and waits until it answers `status`.
func (a *Agent) Start(ctx context.Context) (err error) {
	if a.process, err = start(a.dir+".log", a.path, "run", "--config", a.file("config.toml"),
		"--state-dir", a.file("state"), "--runtime-dir", a.file("run")); err != nil {
		return err
	}
	return Eventually(ctx, func() error {
		if a.ended() {
			return fmt.Errorf("node-agent ended: %s", a.Log())
		}
		_, err := a.Status(ctx)
		return err
	})
}

// Crash kills the daemon. Its workers go on: another daemon adopts them.
func (a *Agent) Crash() { a.process.Kill() }

// Leave ends the daemon as a restart of its service does. Its workers go on.
func (a *Agent) Leave() error { return a.end(syscall.SIGUSR2) }

// Kill kills the daemon and ends what it leaves.
func (a *Agent) Kill() {
	if a.process == nil {
		return
	}
	a.process.Kill()
	// A version from before the workers outlived the daemon knows no such command, and needs none.
	_, _, _ = output(context.Background(), a.path, "end-workers", "--config", a.file("config.toml"), "--state-dir", a.file("state"), "--runtime-dir", a.file("run"))
}

// Status is the part of `node-agent status` that the tests read.
type Status struct {
	NodeID string `json:"nodeId"`
	Core   struct {
		URL      string `json:"url"`
		Identity struct {
			Epoch   int64  `json:"epoch"`
			NextURL string `json:"nextUrl"`
		} `json:"identity"`
		Rejected string `json:"rejected"`
	} `json:"core"`
	Revision struct {
		Running *int64 `json:"running"`
	} `json:"revision"`
	Engines struct {
		Xray struct {
			State      string `json:"state"`
			PID        int    `json:"pid"`
			Streams    int64  `json:"streams"`
			Goroutines int    `json:"goroutines"`
			Restarts   int    `json:"restarts"`
			Draining   int    `json:"draining"`
			AdoptedAt  string `json:"adoptedAt"`
			Inbounds   []struct {
				Tag   string `json:"tag"`
				State string `json:"state"`
			} `json:"inbounds"`
		} `json:"xray"`
	} `json:"engines"`
	ClientsOnline int `json:"clientsOnline"`
	EndedByGrant  int `json:"clientsEndedByGrant"`
}

// Status asks the daemon for its status.
func (a *Agent) Status(ctx context.Context) (s Status, err error) {
	return s, errors.Join(err, outputJSON(ctx, &s, a.path, "status", "--runtime-dir", a.file("run")))
}

// StatusText returns the status as an operator sees it.
func (a *Agent) StatusText(ctx context.Context) (string, error) {
	stdout, stderr, err := output(ctx, a.path, "status", "--runtime-dir", a.file("run"))
	if err != nil {
		return "", fmt.Errorf("status: %w: %s", err, stderr)
	}
	return stdout, nil
}
