// Package otherclients builds the clients that most subscribers use beside Xray, for tests: sing-box and
// mihomo. Each has a module file and checksums of its own in .ci/clients, so that its dependencies are not
// ours. The programs stay in this user's cache folder.
package otherclients

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Client is a program that is built from its own module.
type Client struct {
	Name     string // also the folder below .ci/clients
	Variable string // of the environment; it names a program that is used instead
	pkg      string
	tags     string
}

var (
	// SingBox lacks the tag with_wireguard: module proxies refuse a module that it needs.
	SingBox = Client{"sing-box", "SINGBOX_BIN", "github.com/sagernet/sing-box/cmd/sing-box", "with_gvisor,with_quic,with_utls,with_grpc"}
	// Mihomo has all of its features that tests need.
	Mihomo = Client{"mihomo", "MIHOMO_BIN", "github.com/metacubex/mihomo", "with_gvisor"}
)

// errUnavailable says that the module proxy does not serve a module that the client needs.
var errUnavailable = errors.New("the module proxy does not serve its modules")

// patience is how long a build may take on a machine that is busy with other tests. A cold build of
// both takes two and a half minutes on two idle cores.
const patience = 15 * time.Minute

// Path returns the client's program, and builds it where this user has not done so. It skips the test
// where the modules cannot be had.
func (c Client) Path(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(c.Variable); path != "" {
		return path
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	path, err := c.build(ctx)
	if errors.Is(err, errUnavailable) {
		t.Skipf("NOT RUN: %v. Name a program of %s with %s.", err, c.Name, c.Variable)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// build returns the path of the program in the cache. Processes that build the same client take turns.
func (c Client) build(ctx context.Context) (string, error) {
	module, key, err := c.module(ctx)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for %s: %w", c.Name, err)
	}
	path := filepath.Join(cache, "node-agent-tests", c.Name+"-"+key)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("make a folder for %s: %w", c.Name, err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", fmt.Errorf("lock the program of %s: %w", c.Name, err)
	}
	defer lock.Close()
	if err := hold(ctx, lock); err != nil {
		return "", fmt.Errorf("wait for another build of %s: %w", c.Name, err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	// Listing the packages downloads them.
	if out, err := c.run(ctx, module, "list", "-deps", "-tags", c.tags, "-f", "{{.ImportPath}}", c.pkg); err != nil {
		if bytes.Contains(out, []byte("SECURITY ERROR")) || bytes.Contains(out, []byte("missing go.sum entry")) {
			return "", fmt.Errorf("the modules of %s differ from their checksums: %w\n%s", c.Name, err, out)
		}
		if !unavailable(out) {
			return "", fmt.Errorf("list the packages of %s: %w\n%s", c.Name, err, out)
		}
		return "", fmt.Errorf("build %s: %w: %s", c.Name, errUnavailable, bytes.TrimSpace(out[max(0, len(out)-500):]))
	}
	// A build outlives a test that is killed, and holds no lock then: each one writes into a folder of its own.
	folder, err := os.MkdirTemp(filepath.Dir(path), c.Name+".new-*")
	if err != nil {
		return "", fmt.Errorf("make a folder for %s: %w", c.Name, err)
	}
	defer os.RemoveAll(folder)
	program := filepath.Join(folder, c.Name)
	if out, err := c.run(ctx, module, "build", "-trimpath", "-ldflags", "-s -w", "-tags", c.tags, "-o", program, c.pkg); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", c.Name, err, out)
	}
	if err := os.Rename(program, path); err != nil {
		return "", fmt.Errorf("keep the program of %s: %w", c.Name, err)
	}
	return path, nil
}

// hold locks a file until it is closed. Where another process holds it, it waits until ctx ends.
func hold(ctx context.Context, file *os.File) error {
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is locked by another process: %w", file.Name(), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// absent is what Go's command says where the module proxy or the network is the reason.
var absent = regexp.MustCompile(`GOPROXY|proxyconnect|dial (tcp|udp)|no such host|connection (refused|reset|timed out)|i/o timeout|TLS handshake|tls: |unexpected EOF|` +
	`: (403|404|410|429|500|502|503|504) [A-Z]|unable to access|[Cc]ould not resolve host`)

// unavailable reports whether Go's command failed because it could not fetch a module. Another failure is
// a fault of the module file, of the tags or of the program's source.
func unavailable(said []byte) bool { return absent.Match(said) }

// module returns the folder of the client's module file, and a text that differs where the program would.
func (c Client) module(ctx context.Context) (folder, key string, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", "", fmt.Errorf("find the module: %w", err)
	}
	folder = filepath.Join(filepath.Dir(string(bytes.TrimSpace(out))), ".ci", "clients", c.Name)
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH, c.pkg, c.tags)
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return "", "", fmt.Errorf("read the module of %s: %w", c.Name, err)
		}
		sum.Write(text)
	}
	return folder, fmt.Sprintf("%x", sum.Sum(nil)[:6]), nil
}

// run runs Go's own command in the module's folder. On success its output is of no use.
func (c Client) run(ctx context.Context, folder string, args ...string) ([]byte, error) {
	var said bytes.Buffer
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir, command.Env, command.Stderr = folder, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off"), &said
	err := command.Run()
	return said.Bytes(), err
}
