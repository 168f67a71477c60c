package otherclients

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Both programs are built and say which version they are.
func TestPrograms(t *testing.T) {
	for _, c := range []struct {
		client  Client
		args    []string
		version string
	}{
		{SingBox, []string{"version"}, "with_gvisor,with_quic,with_utls,with_grpc"},
		{Mihomo, []string{"-v"}, "with_gvisor"},
	} {
		t.Run(c.client.Name, func(t *testing.T) {
			t.Setenv(c.client.Variable, "")
			out, err := exec.Command(c.client.Path(t), c.args...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), c.version) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// Only what the module proxy and the network say skips tests.
func TestUnavailable(t *testing.T) {
	for said, want := range map[string]bool{
		`go: github.com/a/b@v1.0.0: reading https://proxy.example/github.com/a/b/@v/v1.0.0.mod: 403 Forbidden`:                                        true,
		"go: a.example/b@v1.0.0: reading https://proxy.example/a.example/b/@v/v1.0.0.zip: 404 Not Found\n\tserver response: not found":                true,
		`go: a.example/b@v1.0.0: reading https://proxy.example/a.example/b/@v/v1.0.0.info: 410 Gone`:                                                  true,
		`go: a.example/b@v1.0.0: Get "https://proxy.example/a.example/b/@v/v1.0.0.mod": dial tcp: lookup proxy.example: no such host`:                 true,
		`go: a.example/b@v1.0.0: Get "https://proxy.example/": proxyconnect tcp: dial tcp 192.0.2.1:8080: connect: connection refused`:                true,
		`go: a.example/b@v1.0.0: module lookup disabled by GOPROXY=off`:                                                                               true,
		`no required module provides package github.com/metacubex/mihomo/proxy; to add it: go get github.com/metacubex/mihomo/proxy`:                  false,
		`package github.com/a/proxy/dial imports github.com/a/lookup: build constraints exclude all Go files in /cache/github.com/a/lookup@v0.4031.0`: false,
		`go: errors parsing go.mod: go.mod:403: unknown directive: connection`:                                                                        false,
		"": false,
	} {
		if got := unavailable([]byte(said)); got != want {
			t.Errorf("%t, want %t: %s", got, want, said)
		}
	}
	none := Client{Name: "mihomo", pkg: "./missing"}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if path, err := none.build(t.Context()); err == nil || errors.Is(err, errUnavailable) {
		t.Errorf("a package that is missing: %q, %v", path, err)
	}
}

// Who waits for another build gives up when its time is over, and builds when the other one has ended.
func TestBuildsTakeTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		return file
	}
	first, second := open(), open()
	if err := hold(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := hold(ended, second); !errors.Is(err, context.Canceled) {
		t.Errorf("a lock that another one holds: %v", err)
	}
	_ = first.Close()
	if err := hold(t.Context(), second); err != nil {
		t.Error(err)
	}
}

// A proxy that has no modules is told from a fault, and a program that the environment names is taken as it is.
func TestNoModules(t *testing.T) {
	for name, value := range map[string]string{"XDG_CACHE_HOME": t.TempDir(), "GOMODCACHE": t.TempDir(), "GOPROXY": "off", "GOTOOLCHAIN": "local"} {
		t.Setenv(name, value)
	}
	if path, err := Mihomo.build(t.Context()); !errors.Is(err, errUnavailable) {
		t.Errorf("without a module proxy: %q, %v", path, err)
	}
	t.Setenv(Mihomo.Variable, "/somewhere/mihomo")
	if path := Mihomo.Path(t); path != "/somewhere/mihomo" {
		t.Errorf("the program is %q", path)
	}
}
