package service

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/fault"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	secret      = "0123456789abcdef0123456789abcdef"
	otherSecret = "123456789abcdef0123456789abcdef0"
)

// cases are Core's configurations. The file of their first inbound is in testdata.
var cases = map[string]string{
	"least": `{"inbounds":[{"nodeProtocolId":7,"tag":"mtproto-7","listen":"127.0.0.1","port":8443,"modes":{"tls":true},"clients":[]}]}`,
	"every member": `{"inbounds":[{"nodeProtocolId":7,"tag":"mtproto-7","listen":"127.0.0.1","port":8443,"modes":{"classic":true,"secure":true,"tls":true},
		"tlsDomains":["one.example","two.example"],"mask":{"host":"127.0.0.1","port":443},"publicHost":"node.example",
		"clients":[{"id":"11111111-1111-4111-8111-111111111111","secret":"` + secret + `","quotaBytes":1073741824,"expiresAt":"2030-01-02T03:04:05+01:00",
			"limitIps":3,"limitConnections":8,"rateUpBitsPerSecond":1000000,"rateDownBitsPerSecond":2000000},
			{"id":"22222222-2222-4222-8222-222222222222","secret":"` + otherSecret + `","rateUpBitsPerSecond":1}]}],
		"upstreams":[{"type":"direct","bindAddresses":["127.0.0.1"]}]}`,
	"ad tag": `{"inbounds":[{"nodeProtocolId":7,"tag":"mtproto-7","port":8443,"modes":{"secure":true},"adTag":"` + secret + `",
		"clients":[{"id":"a","secret":"` + secret + `"}]}]}`,
	"interface": `{"inbounds":[{"nodeProtocolId":7,"tag":"mtproto-7","port":8443,"modes":{"secure":true},"clients":[]}],
		"upstreams":[{"type":"interface","interface":"lo"}]}`,
	"IPv6": `{"inbounds":[{"nodeProtocolId":7,"tag":"mtproto-7","listen":"::1","port":8443,"modes":{"secure":true},"clients":[]}]}`,
	"upstreams": `{"inbounds":[{"nodeProtocolId":7,"tag":"mtproto-7","listen":"127.0.0.1","port":8443,"modes":{"secure":true},"clients":[]}],
		"upstreams":[{"type":"socks5","address":"127.0.0.1:1080","username":"u","password":"p"},{"type":"socks4","address":"127.0.0.1:1081"},
			{"type":"direct","interface":"lo"},{"type":"shadowsocks","url":"ss://x"}]}`,
	"advanced": `{"inbounds":[{"nodeProtocolId":7,"tag":"mtproto-7","listen":"127.0.0.1","port":8443,"modes":{"secure":true},"clients":[]}],
		"upstreams":[{"type":"direct","bindAddresses":["127.0.0.1"]}],
		"advanced":{"general":{"beobachten":false,"me_pool_min_fresh_ratio":0.5},"timeouts":{"client_handshake":30},"dc_overrides":{"1":["127.0.0.1:9000"]}}}`,
}

func testSettings(dir string) NodeSettings {
	return NodeSettings{
		DataDir: dir, APIAddr: "127.0.0.1:19091", MetricsAddr: "127.0.0.1:19090", APIAuthorization: "Bearer test",
		SentinelSecret: "fedcba9876543210fedcba9876543210", Disabled: []string{"33333333-3333-4333-8333-333333333333"},
	}
}

func render(t *testing.T, service string, p NodeSettings) []byte {
	t.Helper()
	s, err := Parse(json.RawMessage(service))
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.ByTag()[s.Inbounds[0].Tag].Render(p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRender(t *testing.T) {
	for name, service := range cases {
		t.Run(name, func(t *testing.T) {
			got := render(t, service, testSettings("/var/lib/node-agent/telemt/mtproto-7"))
			golden := filepath.Join("testdata", strings.ReplaceAll(name, " ", "-")+".toml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("the output differs from %s (update it with go test ./telemt/service -update):\n%s", golden, got)
			}
		})
	}
}

func TestParseRejects(t *testing.T) {
	inbound := func(members string) string {
		return `{"inbounds":[{"nodeProtocolId":7,"tag":"m","port":1,"modes":{"tls":true},` + members + `}]}`
	}
	many := make([]string, MaxClients+1)
	for i := range many {
		many[i] = fmt.Sprintf(`{"id":"c%d","secret":"%032x"}`, i, i)
	}
	for name, c := range map[string]struct{ config, says string }{
		"an unknown member": {inbound(`"prot":1`), "prot"},
		"no tag":            {`{"inbounds":[{"nodeProtocolId":7,"port":1}]}`, "no tag"},
		"a tag twice":       {`{"inbounds":[{"nodeProtocolId":7,"tag":"m","port":1,"modes":{"tls":true}},{"nodeProtocolId":8,"tag":"m","port":2}]}`, "two mtproto inbounds"},
		"no protocol id":    {`{"inbounds":[{"tag":"m","port":1}]}`, "nodeProtocolId"},
		"no modes":          {`{"inbounds":[{"nodeProtocolId":7,"tag":"m","port":1}]}`, "modes"},
		"a port twice": {`{"inbounds":[{"nodeProtocolId":7,"tag":"m","port":1,"modes":{"tls":true}},
			{"nodeProtocolId":8,"tag":"n","listen":"127.0.0.1","port":1,"modes":{"tls":true}}]}`, "both listen on port 1"},
		"a file elsewhere":       {`{"advanced":{"general":{"unknown_dc_log_path":"/etc/passwd"}}}`, "advanced.general.unknown_dc_log_path"},
		"a folder above":         {`{"advanced":{"censorship":{"tls_front_dir":"../../x"}}}`, "advanced.censorship.tls_front_dir"},
		"a reserved key":         {`{"advanced":{"server":{"api":{"listen":"0.0.0.0:1"}}}}`, "advanced.server.api"},
		"no port":                {`{"inbounds":[{"nodeProtocolId":7,"tag":"m"}]}`, "port is missing"},
		"a listen that is no IP": {inbound(`"listen":"here"`), `"here"`},
		"an ad tag cut short":    {inbound(`"adTag":"00"`), "adTag"},
		"a secret cut short":     {inbound(`"clients":[{"id":"a","secret":"0123"}]`), "secret is not 32"},
		"a client without id":    {inbound(`"clients":[{"secret":"` + secret + `"}]`), "no id"},
		"a null in advanced":     {`{"advanced":{"access":{"users":null}}}`, "advanced.access.users is null"},
		"an id twice":            {inbound(`"clients":[{"id":"a","secret":"` + secret + `"},{"id":"a","secret":"` + secret + `"}]`), "the same id"},
		"a negative limit":       {inbound(`"clients":[{"id":"a","secret":"` + secret + `","limitIps":-1}]`), "negative"},
		"too many clients":       {inbound(`"clients":[` + strings.Join(many, ",") + `]`), "at most 4096 clients"},
		"an unknown upstream":    {`{"upstreams":[{"type":"tor"}]}`, `"tor"`},
		"socks5 without address": {`{"upstreams":[{"type":"socks5"}]}`, "needs an address"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(json.RawMessage(c.config))
			if _, ok := errors.AsType[*fault.Fault](err); !ok || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want a fault that says %q", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the error contains a secret: %v", err)
			}
		})
	}
}

// The real telemt accepts the rendered files with config_strict on, and its API answers.
func TestRealTelemtAcceptsIt(t *testing.T) {
	binary := os.Getenv("TELEMT_BIN")
	if binary == "" {
		t.Skip("NOT RUN: the real telemt is not here; build it (cargo build --release in its repository) and name it in TELEMT_BIN")
	}
	for _, name := range []string{"every member", "advanced"} {
		t.Run(name, func(t *testing.T) {
			p := testSettings(t.TempDir())
			p.APIAddr, p.MetricsAddr = freeAddr(t), freeAddr(t)
			_, port, _ := net.SplitHostPort(freeAddr(t))
			config := render(t, strings.Replace(cases[name], `"port":8443`, `"port":`+port, 1), p)
			file := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(file, config, 0o600); err != nil {
				t.Fatal(err)
			}
			var output strings.Builder
			cmd := exec.Command(binary, "run", "--data-path", p.DataDir, file)
			cmd.Stdout, cmd.Stderr = &output, &output
			cmd.Env = append(os.Environ(), "RUST_LOG=info,telemt::links=off")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { _ = cmd.Wait(); close(ended) }()
			kill := func() { _ = cmd.Process.Signal(syscall.SIGKILL); <-ended }
			defer kill()
			var last error
			for deadline := time.Now().Add(40 * time.Second); ; {
				if last = asksAPI(p); last == nil {
					break
				}
				select {
				case <-ended:
					t.Fatalf("telemt ended:\n%s", output.String())
				default:
				}
				if time.Now().After(deadline) {
					kill()
					t.Fatalf("its API does not answer: %v\n%s", last, output.String())
				}
			}
			kill()
			if strings.Contains(output.String(), secret) {
				t.Error("telemt logs a secret")
			}
		})
	}
}

func asksAPI(p NodeSettings) error {
	r, err := http.NewRequest(http.MethodGet, "http://"+p.APIAddr+"/v1/system/info", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", p.APIAuthorization)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
