package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/testfiles"
	"nodeagent/xray/xraytest"
)

const (
	aliceID = "aaaaaaaa-1111-4111-8111-111111111111"
	bobID   = "bbbbbbbb-2222-4222-8222-222222222222"
	carolID = "cccccccc-3333-4333-8333-333333333333"
)

// reportedPart is an element of details.parts.
type reportedPart struct {
	Kind, Tag, Client, Reason string
	Retry                     bool
}

// refusedParts waits until the node has reported parts of the newest revision.
func (c *scriptedCore) refusedParts(ctx context.Context) (parts []reportedPart, err error) {
	return parts, Eventually(ctx, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.failures) == 0 {
			return errors.New("the node has reported nothing")
		}
		raw, err := json.Marshal(c.details["parts"])
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &parts)
	})
}

// A part of a revision that cannot be applied affects no other part: the client that the
// revision removes is cut at once, the new client and the new inbound are served, and no other
// connection ends. The same holds after a restart without Core.
func TestOneFaultRefusesOnePart(t *testing.T) {
	t.Parallel()
	held, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer held.Close()
	badInbound := func(change func(in map[string]any)) func(config map[string]any) {
		return func(config map[string]any) {
			in := with(vlessInbound(0, nil), "tag", "in-9")
			change(in)
			config["inbounds"] = append(config["inbounds"].([]any), in)
		}
	}
	for name, c := range map[string]struct {
		spoil func(config map[string]any)
		want  reportedPart
	}{
		"a certificate that is missing": {badInbound(func(in map[string]any) {
			in["streamSettings"] = map[string]any{"security": "tls", "tlsSettings": map[string]any{"certificates": []any{map[string]any{
				"certificateFile": "/nonexistent/cert.pem", "keyFile": "/nonexistent/key.pem",
			}}}}
		}), reportedPart{Kind: "inbound", Tag: "in-9", Retry: true}},
		"a port that another process holds": {badInbound(func(in map[string]any) {
			in["port"] = held.Addr().(*net.TCPAddr).Port
		}), reportedPart{Kind: "inbound", Tag: "in-9", Retry: true}},
		"an address that no interface has": {badInbound(func(in map[string]any) { in["listen"] = "192.0.2.77" }), reportedPart{Kind: "inbound", Tag: "in-9", Retry: true}},
		"a protocol that does not exist":   {badInbound(func(in map[string]any) { in["protocol"] = "vles" }), reportedPart{Kind: "inbound", Tag: "in-9"}},
		"an unknown member":                {badInbound(func(in map[string]any) { in["listn"] = "127.0.0.1" }), reportedPart{Kind: "inbound", Tag: "in-9"}},
		"a client whose UUID is malformed": {func(config map[string]any) {
			settings := config["inbounds"].([]any)[0].(map[string]any)["settings"].(map[string]any)
			settings["clients"] = append(settings["clients"].([]any), map[string]any{"id": "not-a-uuid", "email": "dave"})
		}, reportedPart{Kind: "client", Tag: "in-1", Client: "dave"}},
		"an outbound of an unknown protocol": {func(config map[string]any) {
			config["outbounds"] = append(config["outbounds"].([]any), map[string]any{"tag": "typo", "protocol": "fredom"})
		}, reportedPart{Kind: "outbound", Tag: "typo"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScriptedWorld(t, quickConfig)
			target := w.target()
			port, err := FreePort()
			must(t, err)
			otherPort, err := FreePort()
			must(t, err)
			config := func(ids ...string) map[string]any {
				var clients []any
				for _, id := range ids {
					clients = append(clients, map[string]any{"id": id})
				}
				return map[string]any{
					"inbounds":  []any{with(withClients(vlessInbound(port, nil), clients), "tag", "in-1")},
					"outbounds": []any{map[string]any{"tag": "direct", "protocol": "freedom"}},
				}
			}
			tunnel := func(id string, port int) *Client {
				return w.client(map[string]any{"protocol": "vless", "settings": vnext(port, map[string]any{"id": id, "encryption": "none"})})
			}
			served := func(c *Client, want bool, what string) {
				t.Helper()
				must(t, Eventually(w.ctx, func() error {
					if err := c.Exchange(target.Addr(), 10, 10); (err == nil) != want {
						return fmt.Errorf("%s is served: %v, want %v: %w", what, !want, want, err)
					}
					return nil
				}))
			}
			w.serve(map[string]wire.ClientRef{aliceID: {UserID: 1}, bobID: {UserID: 2}}, config(aliceID, bobID))
			alice, bob, carol := tunnel(aliceID, port), tunnel(bobID, port), tunnel(carolID, port)
			other := tunnel(bobID, otherPort)
			ofAlice, ofBob := w.dial(alice, target), w.dial(bob, target)
			must(t, Exchange(ofAlice, 10, 10))
			must(t, Exchange(ofBob, 10, 10))

			next := config(bobID, carolID)
			next["inbounds"] = append(next["inbounds"].([]any), with(withClients(vlessInbound(otherPort, nil), []any{map[string]any{"id": bobID}}), "tag", "in-2"))
			c.spoil(next)
			before := w.scripted.revision
			must(t, w.scripted.publish(map[string]wire.ClientRef{bobID: {UserID: 2}, carolID: {UserID: 3}}, next))
			parts, err := w.scripted.refusedParts(w.ctx)
			must(t, err)
			if len(parts) != 1 || parts[0].Reason == "" {
				t.Fatalf("refused are %+v, want one part with a reason", parts)
			}
			parts[0].Reason = ""
			if parts[0] != c.want {
				t.Errorf("refused is %+v, want %+v", parts[0], c.want)
			}
			ended := awaitEnd(ofAlice)
			select {
			case err := <-ended:
				t.Logf("the connection of the removed client has ended: %v", err)
			case <-time.After(3 * time.Second):
				t.Error("the connection of the removed client goes on")
			}
			served(alice, false, "the removed client")
			served(carol, true, "the new client")
			served(other, true, "the new inbound")
			must(t, Exchange(ofBob, 10, 10))
			if status, err := w.agent.Status(w.ctx); err != nil || status.Revision.Running == nil || *status.Revision.Running != before {
				t.Errorf("status %+v, %v: want the revision that ran as a whole", status, err)
			}

			w.scripted.Close() // Core is away
			must(t, w.agent.Stop())
			must(t, w.agent.Start(w.ctx))
			served(bob, true, "a client after the restart")
			served(carol, true, "the new client after the restart")
			served(other, true, "the new inbound after the restart")
			served(alice, false, "the removed client after the restart")
		})
	}
}

// A part that the host can mend runs as soon as the host is mended, without another revision
// and without Core, and then the revision runs as a whole.
func TestRefusedPartComesLater(t *testing.T) {
	t.Parallel()
	w := newScriptedWorld(t, quickConfig)
	port, err := FreePort()
	must(t, err)
	held, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	must(t, err)
	in := with(withClients(vlessInbound(port, nil), []any{map[string]any{"id": bobID}}), "tag", "in-1")
	must(t, w.scripted.publish(map[string]wire.ClientRef{bobID: {UserID: 2}}, map[string]any{"inbounds": []any{in}}))
	if parts, err := w.scripted.refusedParts(w.ctx); err != nil || len(parts) != 1 || !parts[0].Retry {
		t.Fatalf("refused are %+v, %v", parts, err)
	}
	must(t, held.Close())
	w.scripted.change(func() { w.scripted.failures = nil })
	must(t, w.scripted.applied(w.ctx))
}

// An operator adds an inbound whose certificate is missing on the node, and disables a
// subscription: its connection ends at once, the node is degraded and not in error, and the
// links leave out only that inbound. The inbound serves as soon as the files are there.
func TestANodeThatRefusesOneInboundIsDegraded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.protocol()
	alice, bob := w.subscriber("alice"), w.subscriber("bob")
	w.start()
	target := w.target()
	ofAlice, ofBob := w.dial(w.linkClient(alice.Links[0]), target), w.dial(w.linkClient(bob.Links[0]), target)
	must(t, Exchange(ofAlice, 10, 10))
	must(t, Exchange(ofBob, 10, 10))

	certificate, key := filepath.Join(w.dir, "later.crt"), filepath.Join(w.dir, "later.key")
	bad, err := w.core.AddVLESS(w.ctx, "node", "--security", "tls", "--cert", certificate, "--key", key, "--sni", "site.test")
	must(t, err)
	must(t, Eventually(w.ctx, func() error {
		n, err := w.core.Node(w.ctx, "node")
		if err == nil && n.Status != "degraded" {
			err = fmt.Errorf("the node is %s, want degraded", n.Status)
		}
		return err
	}))
	var disabled any
	must(t, w.core.Do(w.ctx, &disabled, "subscription", "disable", fmt.Sprint(alice.ID)))
	ended := awaitEnd(ofAlice)
	select {
	case err := <-ended:
		t.Logf("the connection of the removed client has ended: %v", err)
	case <-time.After(3 * time.Second):
		t.Error("the connection of the disabled subscription goes on")
	}
	must(t, Exchange(ofBob, 10, 10))
	var shown struct {
		Links   []string
		Without []string
	}
	must(t, w.core.Do(w.ctx, &shown, "subscription", "show", fmt.Sprint(bob.ID)))
	if len(shown.Links) != 1 || len(shown.Without) != 1 || !strings.Contains(shown.Links[0], good.Tag) || !strings.Contains(shown.Without[0], bad.Tag) {
		t.Errorf("links %q, without %q: want one of %s alone", shown.Links, shown.Without, good.Tag)
	}

	made := xraytest.NewRenewal(t, x509.Certificate{}, nil)
	testfiles.Write(t, certificate, string(made.Certificate))
	testfiles.Write(t, key, string(made.Key))
	within, cancel := context.WithTimeout(w.ctx, time.Minute) // the first retries come after 15 and 30 s
	defer cancel()
	must(t, w.core.Synced(within, "node"))
	must(t, Exchange(ofBob, 10, 10))
}
