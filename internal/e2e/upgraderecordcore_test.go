package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// recordNodeCore makes the files of a node under a node-core. The daemon is killed while a
// client is online and bytes of the open minute are in no batch yet.
func recordNodeCore(t *testing.T, to string) {
	r := newRecording(t)
	r.runCore()
	front, cert := frontOf(t, r.core)
	r.front = front
	front.serve(t, cert)
	subscriptions := r.addNode()

	// Core refuses usage of an outbound with a tag of more than 200 bytes. The batch is
	// set aside.
	r.move(r.Ways, 10_000, 20_000)
	r.until("Core has the usage", r.coreHas)
	r.until("a batch is set aside", func() error {
		outbox, err := r.outbox()
		if err == nil && outbox.Waiting.Aside == 0 {
			err = errors.New("none is")
		}
		return err
	})
	r.changeNode(subscriptions)
	changed := time.Now()

	// Core accepts the usage of a minute, and the answer does not reach the node.
	front.change(func() { front.lose = true })
	r.move(r.Ways, 3000, 4000)
	r.until("Core has the usage", r.coreHas)
	time.Sleep(time.Until(changed.Add(proved)))
	subscriptions = append(subscriptions, r.subscriber("erin")) // the last revision
	must(t, r.core.Synced(r.ctx, upgradeNode))
	front.close(t)
	r.core.Kill()

	// Core is away for a minute, and the worker crashes.
	r.move(r.Ways, 5000, 6000)
	status, err := r.agent.Status(r.ctx)
	must(t, err)
	must(t, syscall.Kill(status.Engines.Xray.PID, syscall.SIGKILL))
	must(t, Eventually(r.ctx, func() error {
		again, err := r.agent.Status(r.ctx)
		if err == nil && (again.Engines.Xray.PID == status.Engines.Xray.PID || again.Engines.Xray.State != "running") {
			err = fmt.Errorf("the worker is %s", again.Engines.Xray.State)
		}
		return err
	}))
	_, err = r.inbounds()
	must(t, err)
	r.newClients() // the old ones have connections to the old worker
	r.move(r.Ways, 700, 800)
	r.untilWaiting(2)

	// A client is online in the open minute.
	open := r.dialWay(r.Ways[0])
	r.exchange(open, r.Ways[0], 9000, 8000)
	time.Sleep(collected)
	r.recordAgent()
	r.agent.Kill()
	r.MadeAt = time.Now().UTC()

	r.runCore()
	r.recordCommands(subscriptions)
	rest := coreSums(t, r.core)
	must(t, r.core.Stop()) // which leaves core.db without a write-ahead log
	r.recordState(rest, front.taken())
	r.checkComplete()
	r.write(to)
}

// addNode fills Core's tables and starts the node.
func (r *recording) addNode() []Subscription {
	r.t.Helper()
	token, err := r.core.AddNode(r.ctx, upgradeNode)
	must(r.t, err)
	r.Spare, err = r.core.AddNode(r.ctx, "spare")
	must(r.t, err)
	alice, bob, carol := r.subscriber("alice"), r.subscriber("bob"), r.subscriber("carol")
	var laptop Subscription
	must(r.t, r.core.Do(r.ctx, &laptop, "subscription", "add", "--user", "bob"))
	subscriptions := []Subscription{alice, bob, carol, laptop}

	r.addOutbound(strings.Repeat("long", 51)) // 204 bytes
	var removed any
	must(r.t, r.core.Do(r.ctx, &removed, "outbound", "remove", "--node", upgradeNode, "direct"))

	port := upgradeInboundPort
	next := func() int { port++; return port - 1 }
	var plain, vision, gone Protocol
	must(r.t, r.core.Do(r.ctx, &plain, "protocol", "add", "--node", upgradeNode, "--protocol", "vless", "--listen", "127.0.0.1", "--port", itoa(next())))
	must(r.t, r.core.Do(r.ctx, &vision, "protocol", "add", "--node", upgradeNode, "--protocol", "vless", "--listen", "127.0.0.1", "--port", itoa(next()),
		"--security", "reality", "--sni", siteName, "--dest", loopback(upgradeSitePort), "--flow", "xtls-rprx-vision"))
	rows := r.addRows(subscriptions, next)
	gone, err = r.core.AddInbound(r.ctx, upgradeNode, vlessInbound(next(), nil))
	must(r.t, err)
	wireGuard := r.addWireGuard(alice, next())

	r.agent, err = NewAgent(r.ctx, r.progs, filepath.Join(r.dir, "agent"), quickConfig, token)
	must(r.t, err)
	r.startAgent()
	must(r.t, r.core.Synced(r.ctx, upgradeNode))

	for _, s := range []Subscription{alice, bob, laptop} {
		var shown Subscription
		must(r.t, r.core.Do(r.ctx, &shown, "subscription", "show", s.UUID))
		for i, p := range []Protocol{plain, vision} {
			outbound, err := VLESS(shown.Links[i])
			must(r.t, err)
			r.addWay(fmt.Sprintf("subscription %d by link %d", s.ID, i), s, p, outbound)
		}
	}
	for _, row := range rows {
		r.addWay(row.Name, alice, Protocol{ID: row.Account.Protocol}, row.ClientConfig)
	}
	r.addWay("carol", carol, plain, map[string]any{"protocol": "vless", "settings": vlessSettings(plain.Port, carol)})
	r.addWay("gone", bob, gone, map[string]any{"protocol": "vless", "settings": vlessSettings(gone.Port, bob)})
	r.Ways = append(r.Ways, wireGuard)
	for i := range r.Ways {
		r.Ways[i].Outbound, r.Ways[i].Dial = strings.Repeat("long", 51), somewhere
	}
	return subscriptions
}

func (r *recording) addWay(name string, s Subscription, p Protocol, outbound map[string]any) {
	r.Ways = append(r.Ways, upgradeWay{Name: name, Account: upgradeAccount{s.UserID, s.ID, p.ID}, ClientConfig: outbound})
}

// addOutbound adds an outbound that redirects everything to the target.
func (r *recording) addOutbound(tag string) {
	r.t.Helper()
	raw, err := json.Marshal(map[string]any{"tag": tag, "protocol": "freedom", "settings": map[string]any{"redirect": upgradeTarget}})
	must(r.t, err)
	file := filepath.Join(r.dir, "outbound.json")
	must(r.t, os.WriteFile(file, raw, 0o600))
	var added any
	must(r.t, r.core.Do(r.ctx, &added, "outbound", "add", "--node", upgradeNode, "--outbound", file))
}

// addRows adds native inbounds of different kinds. It returns how the first subscription
// reaches them; the users are not filled in.
func (r *recording) addRows(subscriptions []Subscription, next func() int) (ways []upgradeWay) {
	r.t.Helper()
	overTLS, _ := secureStreams(r.t)
	overTLS.server["tlsSettings"] = with(overTLS.server["tlsSettings"].(map[string]any), "alpn", []string{"h3", "h2", "http/1.1"})
	ws := transport("ws", map[string]any{"path": "/ws"})
	upgrade := transport("httpupgrade", map[string]any{"path": "/up"})
	grpc := transport("grpc", map[string]any{"serviceName": "svc"})
	for _, row := range []protocolRow{
		{"vless over WebSocket", "vless", decryption, ws, false, vlessSettings, nil},
		{"vmess over HTTPUpgrade", "vmess", map[string]any{}, upgrade, false, func(port int, s Subscription) map[string]any {
			return vnext(port, map[string]any{"id": s.UUID, "security": "auto"})
		}, nil},
		trojanRow,
		{"trojan over gRPC and TLS", "trojan", map[string]any{}, grpc, true, trojanRow.outbound, nil},
		shadowsocksRow, ss2022Row, hysteriaRow, socksRow,
		{"http", "http", map[string]any{}, nil, false, proxySettings, nil},
	} {
		port := next()
		in := map[string]any{"listen": "127.0.0.1", "port": port, "protocol": row.protocol, "settings": row.settings}
		out := map[string]any{"protocol": row.protocol, "settings": row.outbound(port, subscriptions[0])}
		if stream := secured(row.stream, row.tls, overTLS.server["tlsSettings"].(map[string]any)); stream != nil {
			in["streamSettings"] = stream
			out["streamSettings"] = secured(row.stream, row.tls, overTLS.client["tlsSettings"].(map[string]any))
		}
		if row.protocol == "hysteria" {
			in["streamSettings"] = with(in["streamSettings"].(map[string]any), "hysteriaSettings", map[string]any{"version": 2})
			out["streamSettings"] = with(out["streamSettings"].(map[string]any), "hysteriaSettings", map[string]any{"version": 2, "auth": subscriptions[0].UUID})
		}
		p, err := r.core.AddInbound(r.ctx, upgradeNode, in)
		must(r.t, err)
		ways = append(ways, upgradeWay{Name: row.name, Account: upgradeAccount{Protocol: p.ID}, ClientConfig: out})
	}
	return ways
}

func (r *recording) addWireGuard(s Subscription, port int) upgradeWay {
	r.t.Helper()
	server, peer := newWireGuardKey(r.t), newWireGuardKey(r.t)
	p, err := r.core.AddInbound(r.ctx, upgradeNode, map[string]any{"listen": "127.0.0.1", "port": port, "protocol": "wireguard", "settings": map[string]any{
		"secretKey": wireGuardText(server.Bytes()), "mtu": 1420,
		"peers": []any{map[string]any{"email": s.UUID, "publicKey": wireGuardText(peer.PublicKey().Bytes()), "allowedIPs": []string{"10.9.0.2/32"}}},
	}})
	must(r.t, err)
	return upgradeWay{
		Name: "wireguard", Account: upgradeAccount{s.UserID, s.ID, p.ID},
		ClientConfig: wireGuardClient(peer.Bytes(), "10.9.0.2", port, server.PublicKey().Bytes()),
	}
}

// changeNode replaces the outbound with the long tag by one that Core accepts. It removes
// an inbound and disables a subscription; both have traffic.
func (r *recording) changeNode(subscriptions []Subscription) {
	r.t.Helper()
	r.addOutbound("direct")
	var done any
	must(r.t, r.core.Do(r.ctx, &done, "outbound", "remove", "--node", upgradeNode, r.Ways[0].Outbound))
	for _, way := range r.Ways {
		if way.Name == "gone" {
			must(r.t, r.core.Do(r.ctx, &done, "protocol", "remove", itoa(int(way.Account.Protocol))))
		}
	}
	must(r.t, r.core.Do(r.ctx, &done, "subscription", "disable", subscriptions[2].UUID))
	must(r.t, r.core.Synced(r.ctx, upgradeNode))
	r.Ways = slices.DeleteFunc(r.Ways, func(way upgradeWay) bool { return way.Name == "gone" || way.Name == "carol" })
	for i := range r.Ways {
		r.Ways[i].Outbound = "direct"
	}
}

// coreHas returns an error while Core lacks usage that the target counted.
func (r *recording) coreHas() error {
	have := coreSums(r.t, r.core).usage
	for account, want := range r.usage {
		if have[account] != want {
			return fmt.Errorf("%+v has %+v, want %+v", account, have[account], want)
		}
	}
	return nil
}

// recordCommands records the output of Core's commands.
func (r *recording) recordCommands(subscriptions []Subscription) {
	r.t.Helper()
	r.Commands = map[string]json.RawMessage{}
	for _, words := range coreCommands(subscriptions) {
		var printed any
		must(r.t, r.core.Do(r.ctx, &printed, words...))
		raw, err := json.Marshal(withoutTimes(printed))
		must(r.t, err)
		r.Commands[strings.Join(words, " ")] = raw
	}
}
