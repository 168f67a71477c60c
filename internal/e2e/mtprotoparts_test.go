package e2e

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/telegram"
)

// mtprotoSecret returns a client's secret as Core writes it, and its bytes.
func mtprotoSecret(digit byte) (text string, raw []byte) {
	raw = make([]byte, 16)
	raw[15] = digit
	return fmt.Sprintf("%x", raw), raw
}

// Whatever is wrong in the MTProto service, alone that part is refused: the removed client's
// session ends at once and stays out after a restart without Core, nobody else is cut, and the
// new client is served where its inbound is.
func TestOneFaultRefusesOneMTProtoPart(t *testing.T) {
	t.Parallel()
	telemts(t, func(t *testing.T, binary string) {
		held, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer held.Close()
		type config = map[string]any
		client := func(id string, digit byte) any {
			secret, _ := mtprotoSecret(digit)
			return config{"id": id, "secret": secret}
		}
		inbound := func(number, port int, clients ...any) config {
			return config{"nodeProtocolId": number, "tag": fmt.Sprintf("mtproto-%d", number), "listen": "127.0.0.1", "port": port, "modes": config{"secure": true}, "clients": clients}
		}
		addClient := func(c any) func(config) {
			return func(service config) {
				in := service["inbounds"].([]any)[0].(config)
				in["clients"] = append(in["clients"].([]any), c)
			}
		}
		addInbound := func(in config) func(config) {
			return func(service config) { service["inbounds"] = append(service["inbounds"].([]any), in) }
		}
		for name, c := range map[string]struct {
			spoil  func(service config)
			want   reportedPart
			served bool // the new client is
		}{
			"a malformed secret":               {addClient(config{"id": "dave", "secret": "12"}), reportedPart{Kind: "client", Tag: "mtproto-1", Client: "dave"}, true},
			"the secret of another client":     {addClient(client("dave", 2)), reportedPart{Kind: "client", Tag: "mtproto-1", Client: "dave"}, true},
			"an unknown upstream":              {func(service config) { service["upstreams"] = []any{config{"type": "tor"}} }, reportedPart{Kind: "upstream"}, true},
			"a key of the node's in advanced":  {func(service config) { service["advanced"].(config)["server"] = config{"port": 1} }, reportedPart{Kind: "mtproto"}, false},
			"an ad tag cut short":              {func(service config) { service["inbounds"].([]any)[0].(config)["adTag"] = "00" }, reportedPart{Kind: "mtproto", Tag: "mtproto-1"}, false},
			"a port that another process has":  {addInbound(inbound(2, held.Addr().(*net.TCPAddr).Port, client("bob", 2))), reportedPart{Kind: "mtproto", Tag: "mtproto-2", Retry: true}, true},
			"what telemt refuses in its words": {func(service config) { service["advanced"].(config)["typo"] = config{"a": 1} }, reportedPart{Kind: "mtproto", Tag: "mtproto-1"}, false},
		} {
			t.Run(name, func(t *testing.T) {
				w := newScriptedWorld(t, quickConfig+fmt.Sprintf("[telemt]\nbinary = %q\n", binary))
				target := w.target()
				centre, err := telegram.NewCentre(target.Serve)
				must(t, err)
				t.Cleanup(func() { must(t, centre.Close()) })
				centres := config{}
				for _, number := range []string{"1", "2", "3", "4", "5", "203"} {
					centres[number] = []string{centre.Addr()}
				}
				port, err := FreePort()
				must(t, err)
				service := func(clients ...any) config {
					return config{
						"inbounds":  []any{inbound(1, port, clients...)},
						"upstreams": []any{config{"type": "direct", "bindAddresses": []string{"127.0.0.1"}}},
						"advanced":  config{"dc_overrides": centres},
					}
				}
				xray := config{"outbounds": []any{config{"tag": "direct", "protocol": "freedom"}}}
				clientMap := func(ids ...string) map[string]wire.ClientRef {
					all := map[string]wire.ClientRef{}
					for i, id := range ids {
						all[id] = wire.ClientRef{UserID: int64(i + 1)}
					}
					return all
				}
				dial := func(digit byte) (net.Conn, error) {
					_, secret := mtprotoSecret(digit)
					conn, err := telegram.Dial(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), secret, 2)
					if err == nil {
						t.Cleanup(func() { _ = conn.Close() })
						must(t, conn.SetDeadline(time.Now().Add(time.Second))) // telemt keeps a stranger
						err = Exchange(conn, 10, 10)
					}
					return conn, err
				}
				served := func(digit byte, want bool, what string) {
					t.Helper()
					must(t, Eventually(w.ctx, func() error {
						if _, err := dial(digit); (err == nil) != want {
							return fmt.Errorf("%s is served: %v, want %v: %w", what, !want, want, err)
						}
						return nil
					}))
				}
				must(t, w.scripted.publishBoth(clientMap("alice", "bob"), xray, service(client("alice", 1), client("bob", 2))))
				must(t, w.scripted.applied(w.ctx))
				ofAlice, err := dial(1)
				must(t, err)
				ofBob, err := dial(2)
				must(t, err)

				next := service(client("bob", 2), client("carol", 3))
				c.spoil(next)
				must(t, w.scripted.publishBoth(clientMap("bob", "carol"), xray, next))
				parts, err := w.scripted.refusedParts(w.ctx)
				must(t, err)
				if len(parts) != 1 || parts[0].Reason == "" {
					t.Fatalf("refused are %+v, want one part with a reason", parts)
				}
				parts[0].Reason = ""
				if parts[0] != c.want {
					t.Errorf("refused is %+v, want %+v", parts[0], c.want)
				}
				must(t, ofAlice.SetReadDeadline(time.Now().Add(3*time.Second)))
				if _, err := ofAlice.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
					t.Errorf("the session of the removed client goes on: %v", err)
				}
				must(t, ofBob.SetDeadline(time.Now().Add(5*time.Second)))
				must(t, Exchange(ofBob, 10, 10))
				served(1, false, "the removed client")
				served(2, true, "a client that stays")
				served(3, c.served, "the new client")

				w.scripted.Close() // Core is away
				must(t, w.agent.Stop())
				must(t, w.agent.Start(w.ctx))
				served(2, true, "a client after the restart")
				served(3, c.served, "the new client after the restart")
				served(1, false, "the removed client after the restart")
			})
		}
	})
}
