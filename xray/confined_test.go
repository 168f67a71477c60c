package xray_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/testfiles"
	"nodeagent/xray/xraytest"
)

// confinedBy skips the test where the worker is not confined.
func (r *rig) confinedBy() {
	r.t.Helper()
	if by := r.engine.Status().Confined; !strings.HasPrefix(by, "Landlock") {
		r.t.Skipf("NOT RUN: the worker is confined by %s", by)
	}
}

// A worker opens no file: not the state of the daemon, not even the certificate that it serves.
// The daemon hands that over, also a renewed one and one that a later configuration names.
func TestTheWorkerOpensNoFile(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", aliceID))
	r.confinedBy()
	pid := r.engine.Status().PID
	dir := t.TempDir()
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	certificateFile, keyFile, state := filepath.Join(dir, "certificate"), filepath.Join(dir, "key"), filepath.Join(dir, "node.db")
	for path, text := range map[string]string{certificateFile: certificate, keyFile: key, state: "secret"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port := freePort(t)
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q,"email":%[2]q}]}},
		{"tag":"in-2","listen":"127.0.0.1","port":%[3]d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%[2]q,"email":%[2]q}]},
		"streamSettings":{"security":"tls","tlsSettings":{"certificates":[{"certificateFile":%[4]q,"keyFile":%[5]q}]}}}]}`, r.port, aliceID, port, certificateFile, keyFile)), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	r.apply(s)
	if now := r.engine.Status().PID; now != pid {
		t.Errorf("a configuration that names other files took another worker")
	}
	for _, path := range []string{state, certificateFile} {
		if err := os.WriteFile(filepath.Join(r.assets, probeFile), []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGWINCH); err != nil {
			t.Fatal(err)
		}
		r.eventually("the worker tries to open "+path, func() bool { return strings.Contains(r.log.all(), "probe of "+path) })
		if text := r.log.all(); !strings.Contains(text, "probe of "+path+": open "+path+": permission denied") {
			t.Errorf("the worker opens %s: %s", path, text)
		}
	}
}

// A configuration with a unix socket in a folder that the worker may not use is run by a new
// worker. Further sockets there need none.
func TestAnotherFolderTakesAnotherWorker(t *testing.T) {
	r := newRig(t)
	r.apply(r.state("", aliceID))
	r.confinedBy()
	first := r.engine.Status().PID
	dir, err := os.MkdirTemp("", "sockets") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	serve := func(names ...string) {
		inbounds := []string{fmt.Sprintf(`{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q,"email":%[2]q}]}}`, r.port, aliceID)}
		for i, name := range names {
			inbounds = append(inbounds, fmt.Sprintf(`{"tag":"in-%d","listen":%q,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q,"email":%[3]q}]}}`, i+2, filepath.Join(dir, name), aliceID))
		}
		s, err := parseReaching(json.RawMessage(`{"inbounds":[`+strings.Join(inbounds, ",")+`]}`), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		r.apply(s)
	}
	conn := r.dial(aliceID)
	serve("a.sock")
	second := r.engine.Status().PID
	if second == first {
		t.Error("the worker makes a socket in a folder that was not named when it started")
	}
	if err := use(conn); err != nil {
		t.Errorf("a connection was cut: %v", err)
	}
	serve("a.sock", "b.sock")
	if now := r.engine.Status().PID; now != second {
		t.Error("a second socket in the folder took another worker")
	}
	for _, name := range []string{"a.sock", "b.sock"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Type() != os.ModeSocket {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A worker that is kept from giving up CAP_NET_ADMIN serves all the same, and the status says so.
func TestAWorkerThatKeepsNetAdminServes(t *testing.T) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil || sets[0].Permitted&(1<<unix.CAP_NET_ADMIN) == 0 {
		t.Skipf("NOT RUN: the test has no CAP_NET_ADMIN that a worker could give up (%v)", err)
	}
	r := newRig(t)
	testfiles.Write(t, filepath.Join(r.assets, noCapset), "")
	r.apply(r.state("", aliceID))
	if err := use(r.dial(aliceID)); err != nil {
		t.Error(err)
	}
	if by := r.engine.Status().Confined; !strings.Contains(by, "keeps CAP_NET_ADMIN") {
		t.Errorf("the status does not say that the worker keeps the capability: %q", by)
	}
}
