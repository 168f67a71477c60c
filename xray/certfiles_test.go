package xray_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/testfiles"
	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// secured is a state with a TLS inbound that has these files, and more members of
// Xray's object for them.
func (r *rig) secured(port int, certificateFile, keyFile, more string) state.State {
	r.t.Helper()
	s := r.state("", bobID)
	other, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"tls","listen":"127.0.0.1","port":%d,"protocol":"vless",
		"settings":{"decryption":"none"},"streamSettings":{"security":"tls","tlsSettings":{"certificates":[
		{"certificateFile":%q,"keyFile":%q%s}]}}}]}`, port, certificateFile, keyFile, more)), func(string) bool { return true })
	if err != nil {
		r.t.Fatal(err)
	}
	s.Inbounds["tls"] = other.Inbounds["tls"]
	return s
}

func handshake(port int) (tls.ConnectionState, error) {
	// The certificates are told apart by their bytes.
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: "site.test"}}
	conn, err := dialer.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil
}

// awaitHandshake fails the test where new handshakes don't show the certificate soon.
func awaitHandshake(t *testing.T, port int, what string, want xraytest.Renewal) {
	t.Helper()
	start := time.Now()
	for {
		state, err := handshake(port)
		switch {
		case err != nil:
			t.Fatalf("%s: %v", what, err)
		case bytes.Equal(state.PeerCertificates[0].Raw, want.Leaf.Raw):
			t.Logf("%s: after %s", what, time.Since(start))
			return
		case time.Since(start) > newsWithin:
			t.Fatalf("%s: does not serve new handshakes within %s", what, newsWithin)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// The folders as ACME clients have them; where links turn, and where they lead to
// files that are written anew.
func TestCertificatesBehindLinks(t *testing.T) {
	certbot := func(version int) func(t *testing.T, dir string, c xraytest.Renewal) {
		return func(t *testing.T, dir string, c xraytest.Renewal) {
			for name, data := range map[string][]byte{"cert": c.Certificate, "privkey": c.Key} {
				file := fmt.Sprintf("%s%d.pem", name, version)
				testfiles.Write(t, filepath.Join(dir, "archive/site", file), string(data))
				testfiles.Link(t, "../../archive/site/"+file, filepath.Join(dir, "live/site", name+".pem"))
			}
		}
	}
	acme := func(put func(t *testing.T, path string, data []byte)) func(t *testing.T, dir string, c xraytest.Renewal) {
		return func(t *testing.T, dir string, c xraytest.Renewal) {
			for name, data := range map[string][]byte{"cert": c.Certificate, "privkey": c.Key} {
				target := filepath.Join(dir, "acme/site", name+".pem")
				if _, err := os.Stat(target); err != nil {
					testfiles.Write(t, target, "")
					testfiles.Link(t, target, filepath.Join(dir, "live/site", name+".pem"))
				}
				put(t, target, data)
			}
		}
	}
	inPlace := func(t *testing.T, path string, data []byte) { testfiles.Write(t, path, string(data)) }
	for _, test := range []struct {
		name string
		puts []func(t *testing.T, dir string, c xraytest.Renewal)
	}{
		{"certbot", []func(t *testing.T, dir string, c xraytest.Renewal){certbot(1), certbot(2), certbot(3)}},
		{"acme.sh", []func(t *testing.T, dir string, c xraytest.Renewal){acme(inPlace), acme(inPlace), acme(testfiles.Replace), acme(testfiles.Replace), acme(inPlace)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, dir, port := newRig(t), t.TempDir(), freePort(t)
			for i, put := range test.puts {
				renewed := xraytest.NewRenewal(t, x509.Certificate{}, nil)
				put(t, dir, renewed)
				if i == 0 {
					r.apply(r.secured(port, filepath.Join(dir, "live/site/cert.pem"), filepath.Join(dir, "live/site/privkey.pem"), ""))
				}
				awaitHandshake(t, port, fmt.Sprintf("renewal %d", i), renewed)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.failed) > 0 {
				t.Errorf("told %+v", r.failed)
			}
		})
	}
}

// A folder in which something else writes all the time holds up no renewal.
func TestCertificateInBusyFolder(t *testing.T) {
	r, dir, port := newRig(t), t.TempDir(), freePort(t)
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	put := func(c xraytest.Renewal) {
		testfiles.Write(t, certificate, string(c.Certificate))
		testfiles.Write(t, key, string(c.Key))
	}
	first, second := xraytest.NewRenewal(t, x509.Certificate{}, nil), xraytest.NewRenewal(t, x509.Certificate{}, nil)
	put(first)
	r.apply(r.secured(port, certificate, key, ""))
	awaitHandshake(t, port, "the first", first)
	done, written := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		busy := time.NewTicker(100 * time.Millisecond)
		defer busy.Stop()
		for {
			select {
			case <-busy.C:
				_ = os.WriteFile(filepath.Join(dir, "log"), []byte("something else"), 0o600)
			case <-done:
				return
			}
		}
	}()
	defer func() { close(done); <-written }()
	put(second)
	awaitHandshake(t, port, "the renewed one", second)
}

// newsWithin is how long a changed file may take to be served here, where the promise is
// two seconds.
const newsWithin = 5 * time.Second

// Whatever is at the path of a certificate holds up no change. The fault names it, and can be
// tried again.
func TestCertificateThatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	pipe, zero := filepath.Join(dir, "pipe"), filepath.Join(dir, "zero")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", zero); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	for path, kind := range map[string]string{pipe: "named pipe", zero: "device"} {
		err := r.engine.Apply(t.Context(), r.secured(freePort(t), path, path, ""))
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), kind) {
			t.Errorf("a certificate that is a %s: %v", kind, err)
		}
		if failure, is := errors.AsType[*fault.Fault](err); !is || !failure.Retry {
			t.Errorf("a certificate that is a %s is final: %v", kind, err)
		}
	}
	r.apply(r.state("", bobID))
}
