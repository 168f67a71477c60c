package xray_test

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/internal/testfiles"
	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// A fault that the host can mend is said to be worth another try of the same revision,
// and that try succeeds once the host is mended. A fault in the text is not.
func TestWhatTheHostCanMendIsWorthAnotherTry(t *testing.T) {
	type part struct {
		state state.State
		mend  func() // nil where the text is wrong
	}
	for name, prepare := range map[string]func(t *testing.T, r *rig) part{
		"a certificate that comes later": func(t *testing.T, r *rig) part {
			certificate, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
			return part{r.secured(freePort(t), certificate, key, ""), func() {
				made := xraytest.NewRenewal(t, x509.Certificate{}, nil)
				testfiles.Write(t, certificate, string(made.Certificate))
				testfiles.Write(t, key, string(made.Key))
			}}
		},
		"a certificate of another key": func(t *testing.T, r *rig) part {
			certificate, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
			first, second := xraytest.NewRenewal(t, x509.Certificate{}, nil), xraytest.NewRenewal(t, x509.Certificate{}, nil)
			testfiles.Write(t, certificate, string(first.Certificate))
			testfiles.Write(t, key, string(second.Key))
			return part{r.secured(freePort(t), certificate, key, ""), func() { testfiles.Write(t, key, string(first.Key)) }}
		},
		"a port that another process holds": func(t *testing.T, r *rig) part {
			held, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = held.Close() })
			r.port = held.Addr().(*net.TCPAddr).Port
			return part{r.state("", bobID), func() { _ = held.Close() }}
		},
		"a folder for a unix socket": func(t *testing.T, r *rig) part {
			dir := filepath.Join(t.TempDir(), "later")
			return part{r.withUnix("one", "", filepath.Join(dir, "x.sock")), func() {
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}}
		},
		"a file in the place of a unix socket": func(t *testing.T, r *rig) part {
			path := filepath.Join(t.TempDir(), "x.sock")
			testfiles.Write(t, path, "")
			return part{r.withUnix("one", "", path), func() { _ = os.Remove(path) }}
		},
		"a geo file": func(t *testing.T, r *rig) part {
			return part{r.state(`,"outbounds":[{"tag":"direct","protocol":"freedom"},{"tag":"block","protocol":"blackhole"}],
				"routing":{"rules":[{"ip":["geoip:test"],"outboundTag":"block"}]}`, bobID), func() { writeGeoIP(t, r.assets, "192.0.2.0/24") }}
		},
		"an outbound of an unknown protocol": func(_ *testing.T, r *rig) part {
			return part{state: r.state(`,"outbounds":[{"tag":"direct","protocol":"fredom"}]`, bobID)}
		},
		"a certificate by a relative path": func(t *testing.T, r *rig) part {
			return part{state: r.secured(freePort(t), "cert.pem", "key.pem", "")}
		},
		"an inline certificate that is none": func(t *testing.T, r *rig) part {
			return part{state: r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"tls","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none"},
				"streamSettings":{"security":"tls","tlsSettings":{"certificates":[{"certificate":["x"],"key":["y"]}]}}}]}`, freePort(t)))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			p := prepare(t, r)
			failure := fault.From(r.engine.Apply(t.Context(), p.state))
			switch {
			case failure == nil:
				t.Fatal("it was applied, or refused without a fault")
			case failure.Retry != (p.mend != nil):
				t.Fatalf("worth another try: %v: %s", failure.Retry, failure)
			case p.mend == nil:
				return
			}
			p.mend()
			if err := r.engine.Apply(t.Context(), p.state); err != nil {
				t.Errorf("after the host was mended: %v", err)
			}
		})
	}
}
