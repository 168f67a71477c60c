package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/namespace"
)

// commandsOfMachine are the blocks that are run in a Debian, in this order.
var commandsOfMachine = []string{
	"README.md: sh install.sh --core --from . --unsigned",
	"README.md: sh install.sh --from . --unsigned --token nj1_... --host fra1.example",
	"README.md: node-core protocol add --node fra1 --protocol vless --port 443 --security reality",
	"README.md: node-core node show fra1",
	"docs/operating.md: state_dir = \"/var/lib/node-agent\"",
	"docs/operating.md: [Service]",
	"docs/operating.md: node-core backup /var/backups/core.db",
	"docs/operating.md: systemctl stop node-core",
	"docs/operating.md: node-agent telemt install telemt.tar.gz --sha256 SUM",
	"docs/install.md: dpkg -i node-core_VERSION_amd64.deb",
	"docs/install.md: dpkg -i node-agent_VERSION_amd64.deb",
	"docs/operating.md: systemd-run --pipe --wait -p LoadCredential=node-agent.token:/root/token node-agent register",
	"docs/install.md: rm -rf /var/lib/node-agent /etc/node-agent && userdel node-agent",
	"docs/install.md: install bin/node-agent bin/node-core /usr/bin/",
}

// siteAddress is the address of a host that stands for the Internet: neither Xray nor the node's
// routes keep clients from it.
const siteAddress = "93.184.0.2"

// The commands of the README and of docs/ are typed in a Debian with a systemd of its own, in a
// network of its own. The README leads from nothing to a counted byte of a real client, over
// REALITY.
func TestDocumentedCommands(t *testing.T) {
	namespace.Parallel(t)
	needDebian(t) // made here, where there is a network
	releases := releasesEnv + "=" + filepath.Dir(release(t, "1.0.0"))
	if !inside(t, `ip link add here type veth peer name there && ip addr add 93.184.0.1/24 dev here && ip link set here up`, releases) {
		return
	}
	m := newMachine(t)
	d := &documentedMachine{machine: m, t: t, dir: "/root/dist"}
	d.walk = newWalk(t, func(script string) string { return m.run("cd " + d.dir + "\n" + script) })
	m.copyIn(release(t, "1.0.0"), "/root/dist")
	d.internet()
	m.run(`printf '127.0.0.1 localhost core.example fra1.example\n` + siteAddress + ` www.microsoft.com\n' >/etc/hosts`)

	d.readme()
	d.operating()
	d.packages()
	d.fromSource()
	d.all(commandsOfMachine)
}

type documentedMachine struct {
	*machine
	*walk
	t      *testing.T
	dir    string
	target *Target
}

// internet makes another host, with the site that REALITY borrows, and a server that counts.
func (d *documentedMachine) internet() {
	d.t.Helper()
	thread, moved, made := make(chan int), make(chan struct{}), make(chan error)
	var site, counting net.Listener
	go func() {
		// A thread with a network of its own. It ends with this goroutine; the sockets stay there.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		thread <- unix.Gettid()
		<-moved
		for _, args := range []string{"link set lo up", "addr add " + siteAddress + "/24 dev there", "link set there up"} {
			if err == nil {
				err = exec.Command("ip", strings.Fields(args)...).Run()
			}
		}
		if err == nil {
			site, err = net.Listen("tcp", siteAddress+":443")
		}
		if err == nil {
			counting, err = net.Listen("tcp", siteAddress+":9000")
		}
		made <- err
	}()
	out, err := exec.Command("ip", "link", "set", "there", "netns", fmt.Sprint(<-thread)).CombinedOutput()
	close(moved)
	if madeErr := <-made; err != nil || madeErr != nil {
		d.t.Fatalf("make another host: %v %s %v", err, out, madeErr)
	}
	d.target = &Target{listener: counting}
	d.target.accept(d.target.Serve)
	authority, certificate := siteCertificate(d.t, "www.microsoft.com")
	must(d.t, os.MkdirAll(filepath.Join(d.root, "etc/ssl/certs"), 0o755))
	must(d.t, os.WriteFile(filepath.Join(d.root, "etc/ssl/certs/ca-certificates.crt"), authority, 0o644))
	server := &http.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	go func() { _ = server.ServeTLS(site, "", "") }()
	d.t.Cleanup(func() { _, _ = server.Close(), d.target.Close() })
}

// siteCertificate returns the certificate of an authority, in PEM, and one that it issued for a name.
func siteCertificate(t *testing.T, name string) ([]byte, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	authority, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	must(t, err)
	issuer, err := x509.ParseCertificate(authority)
	must(t, err)
	template.SerialNumber, template.IsCA, template.Subject.CommonName = big.NewInt(2), false, name
	issued, err := x509.CreateCertificate(rand.Reader, &template, issuer, &key.PublicKey, key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority}), tls.Certificate{Certificate: [][]byte{issued}, PrivateKey: key}
}

// token takes the join token out of what node-core node add printed.
func (d *documentedMachine) token(said string) string {
	d.t.Helper()
	token := regexp.MustCompile(`nj1_\w+`).FindString(said)
	if token == "" {
		d.t.Fatalf("node add prints no token:\n%s", said)
	}
	return token
}

// readme walks from nothing to a counted byte, on one host.
func (d *documentedMachine) readme() {
	d.t.Helper()
	begun := time.Now()
	d.words["nj1_..."] = d.token(d.step("README.md: sh install.sh --core --from . --unsigned"))
	if said := d.step("README.md: sh install.sh --from . --unsigned --token nj1_... --host fra1.example"); !strings.HasSuffix(said, "this node is registered and serves") {
		d.t.Errorf("the installer ends with:\n%s", said)
	}
	said := d.step("README.md: node-core protocol add --node fra1 --protocol vless --port 443 --security reality")
	link := regexp.MustCompile(`vless://\S+`).FindString(said)
	if link == "" {
		d.t.Fatalf("there is no link in\n%s", said)
	}
	outbound, err := VLESS(strings.Replace(link, "@fra1.example:", "@127.0.0.1:", 1))
	must(d.t, err)
	client, err := NewClient(d.t.Context(), programs(d.t), filepath.Join(d.t.TempDir(), "client"), outbound)
	must(d.t, err)
	defer client.Kill()
	if err := Eventually(d.t.Context(), func() error { return client.Exchange(d.target.Addr(), 1_000_000, 2_000_000) }); err != nil {
		d.t.Fatalf("%v\n%s\n%s", err, client.Log(), d.run("node-agent status; journalctl --no-pager -n 60 -o cat -u node-agent"))
	}
	served := time.Since(begun)
	must(d.t, Within(d.t.Context(), 2*time.Minute, func() error { // usage is by the minute
		usage := d.run("node-core usage")
		if !strings.Contains(usage, "alice") || !strings.Contains(usage, "fra1") {
			return fmt.Errorf("the usage is\n%s", usage)
		}
		return nil
	}))
	shown := d.step("README.md: node-core node show fra1")
	for _, part := range []string{"synced", "online", "alice", "fra1"} {
		if !strings.Contains(shown, part) {
			d.t.Errorf("the README's last commands do not show %q, but\n%s", part, shown)
		}
	}
	d.t.Logf("From nothing to a byte: %.0f s. Until it was in the usage: %.0f s.", served.Seconds(), time.Since(begun).Seconds())
	d.t.Logf("%s", shown)
}

// operating types what operating.md says, where the README has led to.
func (d *documentedMachine) operating() {
	d.t.Helper()
	// Two blocks are files.
	d.words["state_dir ="] = "cat >/etc/node-agent/config.toml <<'EOF'\nstate_dir ="
	file := d.blocks["docs/operating.md: state_dir = \"/var/lib/node-agent\""].text
	last := file[strings.LastIndex(strings.TrimSuffix(file, "\n"), "\n")+1:]
	d.words[last] = last + "EOF\nsystemctl restart node-agent"
	d.step("docs/operating.md: state_dir = \"/var/lib/node-agent\"")
	d.words["[Service]"] = "mkdir -p /etc/systemd/system/node-agent.service.d\ncat >/etc/systemd/system/node-agent.service.d/override.conf <<'EOF'\n[Service]"
	d.words["CapabilityBoundingSet=CAP_NET_ADMIN\n"] = "CapabilityBoundingSet=CAP_NET_ADMIN\nEOF\nsystemctl daemon-reload\n"
	d.step("docs/operating.md: [Service]")
	if set := d.property("AmbientCapabilities"); !strings.Contains(set, "cap_net_admin") || !strings.Contains(set, "cap_net_bind_service") {
		d.t.Errorf("with the drop-in the capabilities are %q", set)
	}
	d.run("rm -r /etc/systemd/system/node-agent.service.d; systemctl daemon-reload")

	d.run("mkdir -p /var/backups")
	d.step("docs/operating.md: node-core backup /var/backups/core.db")
	d.step("docs/operating.md: systemctl stop node-core")
	must(d.t, Eventually(d.t.Context(), func() error {
		_, err := d.try("node-core user list | grep alice")
		return err
	}))

	double := filepath.Join(d.t.TempDir(), "telemt")
	out, err := exec.Command("go", "build", "-o", double, "nodeagent/internal/telemtdouble").CombinedOutput()
	if err != nil {
		d.t.Fatalf("build the double: %v\n%s", err, out)
	}
	archive := filepath.Join(d.root, d.dir, "telemt.tar.gz")
	if out, err := exec.Command("tar", "-czf", archive, "-C", filepath.Dir(double), "telemt").CombinedOutput(); err != nil {
		d.t.Fatalf("pack the double: %v\n%s", err, out)
	}
	packed, err := os.ReadFile(archive)
	must(d.t, err)
	d.words["SUM"] = fmt.Sprintf("%x", sha256.Sum256(packed))
	d.words["--sha256 SUM"] = "--anyway --sha256 " + d.words["SUM"] // the double says that it is a release that stalls
	d.step("docs/operating.md: node-agent telemt install telemt.tar.gz --sha256 SUM")
	if said := d.run("telemt --version"); !strings.HasPrefix(said, "telemt ") {
		d.t.Errorf("the telemt that was installed says %q", said)
	}
}

// packages installs both packages by hand, and registers a node with a credential of systemd too.
func (d *documentedMachine) packages() {
	d.t.Helper()
	d.run("dpkg --purge node-agent node-core")
	d.words["VERSION_amd64"] = "1.0.0_" + runtime.GOARCH
	d.words["nj1_..."] = d.token(d.step("docs/install.md: dpkg -i node-core_VERSION_amd64.deb"))
	if said := d.step("docs/install.md: dpkg -i node-agent_VERSION_amd64.deb"); !strings.Contains(said, "node-agent 1.0.0") {
		d.t.Errorf("the status after the installation is\n%s", said)
	}
	d.run("dpkg --purge node-agent; dpkg -i " + d.dir + "/node-agent_*.deb")
	d.run("printf %s " + d.token(d.run("node-core node add fra2")) + " >/root/token")
	d.step("docs/operating.md: systemd-run --pipe --wait -p LoadCredential=node-agent.token:/root/token node-agent register")
	d.run("systemctl start node-agent && node-agent status && systemctl stop node-agent")
	d.run("dpkg -r node-agent")
	d.step("docs/install.md: rm -rf /var/lib/node-agent /etc/node-agent && userdel node-agent")
	d.run("dpkg --purge node-agent node-core")
}

// fromSource installs what make build has built.
func (d *documentedMachine) fromSource() {
	d.t.Helper()
	root, err := moduleRoot(d.t.Context())
	must(d.t, err)
	d.copyIn(filepath.Join(root, "packaging"), "/root/source/packaging")
	built := programs(d.t)
	must(d.t, os.MkdirAll(filepath.Join(d.root, "root/source/bin"), 0o755))
	for _, program := range []string{built.Agent, built.Core} {
		data, err := os.ReadFile(program)
		must(d.t, err)
		must(d.t, os.WriteFile(filepath.Join(d.root, "root/source/bin", filepath.Base(program)), data, 0o755))
	}
	d.dir = "/root/source"
	d.step("docs/install.md: install bin/node-agent bin/node-core /usr/bin/")
	d.run("echo 'NODE_CORE_OPTIONS=--public-url https://core.example:8443' >/etc/node-core/environment")
	d.run("systemctl start node-core && systemctl is-active node-core")
	token := d.token(d.run("node-core node add fra1"))
	d.run("node-agent register " + token + " && systemctl start node-agent && systemctl is-active node-agent")
}
