package otherclients

import (
	"errors"
	"os/exec"
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
