package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// refused runs a command that must fail with one line that says what to do.
func refused(t *testing.T, says []string, path string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	stdout, stderr, err := output(ctx, path, args...)
	if _, failed := errors.AsType[*exec.ExitError](err); !failed || ctx.Err() != nil {
		t.Errorf("%v: ended with %v, want an exit code", args, err)
	}
	if stdout != "" || strings.Count(stderr, "\n") != 1 {
		t.Errorf("%v: wants one line on standard error, got\n%s%s", args, stdout, stderr)
	}
	for _, words := range says {
		if !strings.Contains(stderr, words) {
			t.Errorf("%v: does not say %q: %s", args, words, stderr)
		}
	}
}

func TestRegisterRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	state := func() string { return filepath.Join(t.TempDir(), "state") }
	serve := func(handle http.HandlerFunc) string {
		server := httptest.NewServer(handle)
		t.Cleanup(server.Close)
		return server.URL
	}
	code := func(flags ...string) string {
		var added struct{ Code string }
		must(t, w.core.Do(w.ctx, &added, append([]string{"node", "code", "node"}, flags...)...))
		return added.Code
	}
	used := func() string {
		var added struct{ JoinToken string }
		must(t, w.core.Do(w.ctx, &added, "node", "code", "node"))
		if _, stderr, err := output(w.ctx, w.progs.Agent, "register", added.JoinToken, "--state-dir", state()); err != nil {
			t.Fatal(stderr)
		}
		return added.JoinToken
	}
	https := "https://" + w.core.listen
	for _, c := range []struct {
		name string
		args []string
		says []string
	}{
		{"no arguments", nil, []string{"join token", "--core"}},
		{"a token of another kind", []string{"eyJhbGciOi"}, []string{"nj1_", "node-core node add"}},
		{"a token cut short", []string{"nj1_eyJ1Ijoi"}, []string{"cut short"}},
		{"no URL", []string{"--core", "core.example", "--code", "x"}, []string{"core.example", "https://"}},
		{"no listener", []string{"--core", "http://127.0.0.1:1", "--code", "x"}, []string{"reach Core", "refused", "repeat"}},
		{"an unknown CA", []string{"--core", https, "--code", "x"}, []string{"trust Core", "join token", "--core-ca"}},
		{"an unknown code", []string{wrongCode(t, used())}, []string{"code is not known", "node-core node"}},
		{"a used code", []string{used()}, []string{"has been used", "new"}},
		{"HTML", []string{"--core", serve(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/html")
			_, _ = rw.Write([]byte("<html>"))
		}), "--code", "x"}, []string{"does not come from Core", "path"}},
		{"cut JSON", []string{"--core", serve(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(`{"auth`)) }), "--code", "x"}, []string{"does not come from Core"}},
		{"a 500", []string{"--core", serve(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusInternalServerError) }), "--code", "x"}, []string{"500", "repeat"}},
		{"silence", []string{"--timeout", "300ms", "--code", "x", "--core", serve(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // without reading, the server does not notice that the client closed
			<-r.Context().Done()
		})}, []string{"no answer", "repeat"}},
		{"a file without certificates", []string{"--core", https, "--code", "x", "--core-ca", os.DevNull}, []string{"PEM"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, c.says, w.progs.Agent, append([]string{"register", "--state-dir", state()}, c.args...)...)
		})
	}
	t.Run("an expired code", func(t *testing.T) {
		expired := code("--expires-in", "1ms")
		time.Sleep(5 * time.Millisecond)
		proxy, _ := w.countingProxy()
		refused(t, []string{"has expired", "new"}, w.progs.Agent, "register", "--state-dir", state(), "--core", proxy, "--code", expired)
	})
	t.Run("registered already", func(t *testing.T) {
		refused(t, []string{"registered as node", "--force"}, w.progs.Agent, "register", "--state-dir", w.agent.file("state"), "--core", https, "--code", "x")
	})
	t.Run("a state folder that cannot be made", func(t *testing.T) {
		refused(t, []string{"--state-dir"}, w.progs.Agent, "register", "--state-dir", "/proc/nope", "--core", https, "--code", "x")
	})
}

// wrongCode changes one letter of a token's code.
func wrongCode(t *testing.T, token string) string {
	t.Helper()
	parsed, err := parseToken(token)
	must(t, err)
	parsed.Code = "AAAA-" + parsed.Code[5:]
	return parsed.Encode()
}

// A lost answer does not use the code up: the same command gets the same key. Another command
// with the same code gets none.
func TestLostRegistrationAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var added struct{ Code string }
	must(t, w.core.Do(w.ctx, &added, "node", "code", "node"))
	proxy, _ := w.countingProxy()
	lossy, lose := dropAnswers(t, proxy)
	state := filepath.Join(w.dir, "lost")
	args := []string{"register", "--state-dir", state, "--core", lossy, "--code", added.Code, "--timeout", "2s"}
	lose.Store(true)
	refused(t, []string{"repeat"}, w.progs.Agent, args...)
	lose.Store(false)
	refused(t, []string{"has been used"}, w.progs.Agent, "register", "--state-dir", filepath.Join(w.dir, "other"), "--core", lossy, "--code", added.Code)
	if _, stderr, err := output(w.ctx, w.progs.Agent, args...); err != nil {
		t.Fatalf("the repeated command: %v: %s", err, stderr)
	}
}

func TestRunRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.agent.Start(w.ctx))
	t.Run("a second daemon on the state folder", func(t *testing.T) {
		refused(t, []string{"in use by another node-agent", "--state-dir"}, w.progs.Agent, "run", "--state-dir", w.agent.file("state"), "--runtime-dir", t.TempDir())
	})
	t.Run("a second daemon on the runtime folder", func(t *testing.T) {
		token, err := w.core.AddNode(w.ctx, "second")
		must(t, err)
		second, err := NewAgent(w.ctx, w.progs, filepath.Join(w.dir, "second"), quickConfig, token)
		must(t, err)
		refused(t, []string{"runtime folder", "--runtime-dir"}, w.progs.Agent, "run", "--state-dir", second.file("state"), "--runtime-dir", w.agent.file("run"))
	})
	t.Run("not registered", func(t *testing.T) {
		refused(t, []string{"not registered", "node-agent register"}, w.progs.Agent, "run", "--state-dir", t.TempDir(), "--runtime-dir", t.TempDir())
	})
	t.Run("a damaged state file", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "node.db"), []byte(strings.Repeat("junk", 10_000)), 0o600))
		refused(t, []string{"damaged", "register"}, w.progs.Agent, "run", "--state-dir", dir, "--runtime-dir", t.TempDir())
	})
	t.Run("an unknown key in the configuration", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "config.toml")
		must(t, os.WriteFile(file, []byte("log_level = \"info\"\n[xray]\ndrain = \"5m\"\n"), 0o600))
		refused(t, []string{file, "line 3", "xray.drain"}, w.progs.Agent, "run", "--config", file)
	})
	t.Run("status without a daemon", func(t *testing.T) {
		cmd := exec.Command(w.progs.Agent, "status", "--runtime-dir", t.TempDir())
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 3 || !strings.Contains(string(out), "not running") {
			t.Errorf("exit code %d, want 3: %s", code, out)
		}
	})
	t.Run("a second Core on the data folder", func(t *testing.T) {
		refused(t, []string{"another node-core"}, w.progs.Core, "serve", "--data-dir", w.core.dir, "--listen", "127.0.0.1:0")
	})
	t.Run("plain HTTP to the network", func(t *testing.T) {
		refused(t, []string{"loopback"}, w.progs.Core, "serve", "--data-dir", t.TempDir(), "--listen", "0.0.0.0:0", "--insecure-http")
	})
	t.Run("a Core that does not run", func(t *testing.T) {
		refused(t, []string{"node-core serve"}, w.progs.Core, "node", "list", "--data-dir", t.TempDir())
	})
}

// Only the owner can read files that hold secrets.
func TestFileModes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.agent.Start(w.ctx))
	for path, want := range map[string]os.FileMode{
		w.agent.file("state"):         0o700,
		w.agent.file("state/node.db"): 0o600,
		w.agent.file("run"):           0o700,
		w.core.dir:                    0o700,
		w.core.dir + "/core.db":       0o600,
		w.core.dir + "/tls.key":       0o600,
		w.core.dir + "/admin.sock":    0o600,
	} {
		info, err := os.Stat(path)
		must(t, err)
		if mode := info.Mode().Perm(); mode != want {
			t.Errorf("%s has mode %o, want %o", path, mode, want)
		}
	}
}

// Where the operator wants it, the worker ends with the daemon, also when the daemon is killed.
func TestWorkerDiesWithTheDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	config, err := os.ReadFile(w.agent.file("config.toml"))
	must(t, err)
	must(t, os.WriteFile(w.agent.file("config.toml"), bytes.Replace(config, []byte(`orphan_timeout = "2m"`), []byte(`orphan_timeout = "0s"`), 1), 0o600))
	p := w.protocol()
	w.start()
	w.agent.Crash()
	must(t, Eventually(w.ctx, func() error {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", itoa(p.Port)))
		if err == nil {
			_ = l.Close()
		}
		return err
	}))
}
