package e2e

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// image is the file system of an image, as a container has it: only the host's network, processes
// and devices are in there besides.
type image struct {
	t    *testing.T
	root string
	args []string // for unshare: as the image's user, the image's entry point
}

// buildah runs a command of buildah with a storage of its own.
func buildah(t *testing.T, storage string, args ...string) string {
	t.Helper()
	cmd := exec.Command("buildah", append([]string{"--storage-driver", "vfs", "--root", storage + "/root", "--runroot", storage + "/run"}, args...)...)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("buildah %q: %v\n%s%s", args, err, out, words.String())
	}
	return strings.TrimSpace(string(out))
}

// newImage builds the image of a program from the files of a release, and makes a container of it.
func newImage(t *testing.T, storage, dist, program string, command ...string) image {
	t.Helper()
	buildah(t, storage, "build", "--isolation", "chroot", "-f", filepath.Join(dist, program+".Containerfile"), "-t", program, dist)
	var built struct {
		OCIv1 struct {
			Config struct {
				User            string
				Entrypoint, Cmd []string
				Volumes         map[string]struct{}
				Labels          map[string]string
			}
		}
	}
	must(t, json.Unmarshal([]byte(buildah(t, storage, "inspect", "--type", "image", program)), &built))
	config := built.OCIv1.Config
	_, keeps := config.Volumes["/var/lib/"+program]
	if config.User != "65532:65532" || !keeps || !slices.Equal(config.Cmd, command) || config.Labels["org.opencontainers.image.version"] != "1.0.0" {
		t.Errorf("the configuration of %s is %+v", program, config)
	}
	container := buildah(t, storage, "from", "--pull=never", "localhost/"+program)
	root := buildah(t, storage, "mount", container)
	t.Cleanup(func() { buildah(t, storage, "rm", container) })
	const enter = `mkdir -p "$0/proc" "$0/dev"; mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; exec chroot --userspec="$USERSPEC" "$0" "$@"`
	return image{t, root, append([]string{"--mount", "env", "-i", "PATH=" + os.Getenv("PATH"), "USERSPEC=" + config.User, "sh", "-ec", enter, root}, config.Entrypoint...)}
}

// start runs the program until it is stopped.
func (i image) start(args ...string) *process {
	i.t.Helper()
	p, err := start(filepath.Join(i.t.TempDir(), "log"), "unshare", append(slices.Clone(i.args), args...)...)
	must(i.t, err)
	i.t.Cleanup(p.Kill)
	return p
}

// run runs a command of the program.
func (i image) run(args ...string) (string, error) {
	out, err := exec.Command("unshare", append(slices.Clone(i.args), args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%q: %w: %s", args, err, out)
	}
	return string(out), nil
}

// do runs a command of node-core and decodes its answer.
func (i image) do(answer any, command string) error {
	out, err := i.run(append(strings.Fields(command), "--output", "json")...)
	if err != nil {
		return err
	}
	return decode([]byte(out), answer)
}

// The images of both programs are built from the files of a release. In what is in them, and as
// their users, Core and a node serve a client, and every byte is counted.
func TestImages(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root builds images and enters them")
	}
	for _, tool := range []string{"buildah", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: %s is not installed (apt-get install buildah util-linux)", tool)
		}
	}
	dist, storage := release(t, "1.0.0"), t.TempDir()
	core := newImage(t, storage, dist, "node-core", "serve")
	agent := newImage(t, storage, dist, "node-agent", "run")
	roots, err := os.ReadFile(filepath.Join(agent.root, "etc/ssl/certs/ca-certificates.crt"))
	must(t, err)
	if pool := x509.NewCertPool(); !pool.AppendCertsFromPEM(roots) {
		t.Error("the image has no certificates of authorities")
	}

	port, err := FreePort()
	must(t, err)
	inbound, err := FreePort()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(core.root, "outbound.json"), []byte(freedomNamesLoopback), 0o644))
	address := fmt.Sprintf("127.0.0.1:%d", port)
	core.start("serve", "--listen", address, "--public-url", "https://"+address)
	var added struct{ JoinToken string }
	must(t, Eventually(t.Context(), func() error { return core.do(&added, "node add fra1") }))
	var ignored json.RawMessage
	must(t, core.do(&ignored, "outbound add --node fra1 --outbound /outbound.json"))
	must(t, core.do(&ignored, fmt.Sprintf("protocol add --node fra1 --protocol vless --listen 127.0.0.1 --port %d", inbound)))
	must(t, core.do(&ignored, "user add alice"))
	var subscription Subscription
	must(t, core.do(&subscription, "subscription add --user alice"))

	_, err = agent.run("register", "--host", "127.0.0.1", "--ip", "127.0.0.1", added.JoinToken)
	must(t, err)
	daemon := agent.start("run")
	target, err := NewTarget()
	must(t, err)
	t.Cleanup(func() { _ = target.Close() })
	must(t, core.do(&subscription, fmt.Sprintf("subscription show %d", subscription.ID)))
	outbound, err := VLESS(subscription.Links[0])
	must(t, err)
	client, err := NewClient(t.Context(), programs(t), filepath.Join(t.TempDir(), "client"), outbound)
	must(t, err)
	t.Cleanup(client.Kill)
	must(t, Eventually(t.Context(), func() error { return client.Exchange(target.Addr(), 1_000_000, 2_000_000) }))
	if err := daemon.Stop(); err != nil { // which delivers the rows of its last minute
		t.Error(err)
	}
	must(t, Eventually(t.Context(), func() error {
		var rows []UsageRow
		if err := core.do(&rows, "usage --limit 100000"); err != nil {
			return err
		}
		var have Traffic
		for _, r := range rows {
			have.Up += r.BytesUp
			have.Down += r.BytesDown
		}
		if want := target.Traffic(); have != want {
			return fmt.Errorf("Core has %+v, the server counted %+v", have, want)
		}
		return nil
	}))
}
