package packaging

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"
)

// signer signs as minisign does (https://jedisct1.github.io/minisign, "Signature format").
type signer struct {
	number  [8]byte
	public  ed25519.PublicKey
	private ed25519.PrivateKey
}

func newSigner(t *testing.T) signer {
	t.Helper()
	var s signer
	var err error
	if s.public, s.private, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	_, _ = rand.Read(s.number[:]) // it never fails
	return s
}

func (s signer) key() string {
	return base64.StdEncoding.EncodeToString(append(append([]byte("Ed"), s.number[:]...), s.public...))
}

func (s signer) sign(data []byte) string {
	const comment = "timestamp:1700000000\tfile:SHA256SUMS"
	sum := blake2b.Sum512(data)
	signature := ed25519.Sign(s.private, sum[:])
	whole := ed25519.Sign(s.private, append(bytes.Clone(signature), comment...))
	line := append(append([]byte("ED"), s.number[:]...), signature...)
	return "untrusted comment: test\n" + base64.StdEncoding.EncodeToString(line) + "\ntrusted comment: " + comment + "\n" + base64.StdEncoding.EncodeToString(whole) + "\n"
}

const packageFile = "node-agent_1.2.3+4.gabc_amd64.deb"

// makeRelease makes the folder of a release with one package.
func makeRelease(t *testing.T, by signer) string {
	t.Helper()
	dir := t.TempDir()
	body := []byte("a package")
	sums := fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(body), packageFile)
	for name, data := range map[string][]byte{packageFile: body, "SHA256SUMS": sums, "SHA256SUMS.minisig": []byte(by.sign(sums))} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// standIns are the programs that install.sh runs and that would change this machine. Each of them
// writes its arguments and standard input to the file "ran". It is not registered, and serves.
var standIns = map[string]string{
	"id": "echo 0", "uname": "echo x86_64", "dpkg": `echo "dpkg $*" >>"$RAN"`, "systemctl": `echo "systemctl $*" >>"$RAN"`,
	"node-agent": `echo "node-agent $*" >>"$RAN"; [ "$1 $2" != "register -" ] || cat >>"$RAN"`,
}

// host has stand-ins before the real programs in PATH; without leaves programs out.
type host struct {
	path string
	ran  string
}

func newHost(t *testing.T, without ...string) host {
	t.Helper()
	dir := t.TempDir()
	h := host{path: filepath.Join(dir, "bin"), ran: filepath.Join(dir, "ran")}
	if err := os.Mkdir(h.path, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range standIns {
		if err := os.WriteFile(filepath.Join(h.path, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{
		"sh", "cat", "cp", "curl", "sed", "tail", "head", "wc", "base64", "tr", "grep", "sha256sum", "mktemp", "rm", "sleep", "openssl", "minisign",
	} {
		real, err := exec.LookPath(name)
		if err != nil || strings.Contains(" "+strings.Join(without, " ")+" ", " "+name+" ") {
			continue
		}
		if err := os.Symlink(real, filepath.Join(h.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// install runs a script on the host, and returns what it said and which stand-ins it ran.
func (h host) install(t *testing.T, script []byte, args ...string) (said, ran string, err error) {
	t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-s", "--"}, args...)...)
	cmd.Stdin = bytes.NewReader(script)
	cmd.Env = []string{"PATH=" + h.path, "RAN=" + h.ran}
	out, err := cmd.CombinedOutput()
	steps, readErr := os.ReadFile(h.ran)
	if readErr != nil && !os.IsNotExist(readErr) {
		t.Fatal(readErr)
	}
	return string(out), string(steps), err
}

func readInstaller(t *testing.T) []byte {
	t.Helper()
	script, err := os.ReadFile("install.sh")
	if err != nil {
		t.Fatal(err)
	}
	return script
}

// verifiers are the hosts that check signatures with each of the tools.
func verifiers(t *testing.T) map[string][]string {
	all := map[string][]string{}
	for tool, other := range map[string]string{"minisign": "openssl", "openssl": "minisign"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("NOT TRIED: signatures with %s, which is not installed (apt-get install %s)", tool, tool)
			continue
		}
		all[tool] = []string{other}
	}
	if len(all) == 0 {
		t.Fatal("neither minisign nor openssl is installed: apt-get install openssl")
	}
	return all
}

// Through a pipe, from a URL, with a token: the package is installed, the node registered with the
// token on standard input. Where systemd does not run, the script says what to do instead.
func TestInstall(t *testing.T) {
	by := newSigner(t)
	for tool, without := range verifiers(t) {
		t.Run(tool, func(t *testing.T) {
			server := httptest.NewServer(http.FileServer(http.Dir(makeRelease(t, by))))
			defer server.Close()
			said, ran, err := newHost(t, without...).install(t, readInstaller(t), "--from", server.URL+"/", "--key", by.key(), "--token", "nj1_abc", "--host", "a b.example")
			if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			for _, want := range []string{"dpkg -i --force-confdef --force-confold " + packageFile + "\n", "node-agent register - --host a b.example\nnj1_abc\n"} {
				if !strings.Contains(ran, want) {
					t.Errorf("it did not run %q, but\n%s", want, ran)
				}
			}
		})
	}
}

// Whatever is wrong with a release, nothing of it is installed.
func TestInstallRefuses(t *testing.T) {
	by, other := newSigner(t), newSigner(t)
	other.number = by.number
	spoil := func(name, from, to string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(data), from, to, 1)
			if changed == string(data) {
				t.Fatalf("%s does not have %q", name, from)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(changed), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		args  []string
		want  string
	}{
		"another package":            {spoil(packageFile, "a package", "another one"), []string{"--key", by.key()}, "is not the file that SHA256SUMS names"},
		"another package, unsigned":  {spoil(packageFile, "a package", "another one"), []string{"--unsigned"}, "is not the file that SHA256SUMS names"},
		"other checksums":            {spoil("SHA256SUMS", "1.2.3", "1.2.4"), []string{"--key", by.key()}, "signature of SHA256SUMS is wrong"},
		"another trusted comment":    {spoil("SHA256SUMS.minisig", "1700000000", "1800000000"), []string{"--key", by.key()}, "signature of SHA256SUMS is wrong"},
		"another key":                {nil, []string{"--key", other.key()}, "signature of SHA256SUMS is wrong"},
		"another number of the key":  {nil, []string{"--key", newSigner(t).key()}, "signature of SHA256SUMS is wrong"},
		"no signature":               {remove("SHA256SUMS.minisig"), []string{"--key", by.key()}, "SHA256SUMS.minisig"},
		"no key":                     {nil, nil, "public key of the release is not known"},
		"no package of this machine": {spoil("SHA256SUMS", "amd64", "riscv"), []string{"--unsigned"}, "has 0 packages"},
		"an unknown option":          {nil, []string{"--frobnicate"}, "--frobnicate is unknown"},
		"an option without a value":  {nil, []string{"--token"}, "--token needs a value"},
	} {
		t.Run(name, func(t *testing.T) {
			for tool, without := range verifiers(t) {
				dir := makeRelease(t, by)
				if c.spoil != nil {
					c.spoil(t, dir)
				}
				said, ran, err := newHost(t, without...).install(t, readInstaller(t), append([]string{"--from", dir}, c.args...)...)
				if err == nil || !strings.Contains(said, c.want) {
					t.Errorf("with %s: %v, and it said\n%swant %q", tool, err, said, c.want)
				}
				if ran != "" {
					t.Errorf("with %s, it ran\n%s", tool, ran)
				}
			}
		})
	}
}

// Of a script that was cut short while it was fetched, nothing runs.
func TestInstallCutShort(t *testing.T) {
	by := newSigner(t)
	dir, script := makeRelease(t, by), readInstaller(t)
	h := newHost(t)
	for _, n := range []int{len(script) / 3, len(script) / 2, bytes.LastIndex(script, []byte("main"))} {
		if _, ran, _ := h.install(t, script[:n], "--from", dir, "--unsigned", "--token", "nj1_abc"); ran != "" {
			t.Errorf("of the first %d bytes it ran\n%s", n, ran)
		}
	}
}
