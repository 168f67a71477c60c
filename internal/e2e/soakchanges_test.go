package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"nodeagent/coreclient/wire"
)

// soakExtras is the most clients that a change adds to an inbound, and the most inbounds that
// changes add.
const soakExtras = 12

// soakNode is a node's configuration as it changes. The watched inbounds and the first client
// of each stay.
type soakNode struct {
	*world
	rand     *rand.Rand
	watched  []*soakInbound
	extras   []*soakInbound
	outbound map[string]any // direct, the default
	spare    int            // outbounds that no rule names
	routing  map[string]any
	dns      map[string]any
	policy   map[string]any
	// observatory changes where takeovers are wanted, so that a new worker takes over.
	observatory map[string]any
	takeovers   bool
	number      int64          // of inbounds and users, counting up
	done        map[string]int // how often each kind of change was made
}

// soakInbound is an inbound; the test watches its first client.
type soakInbound struct {
	config   map[string]any
	account  func(uuid string) map[string]any
	client   *soakClient
	others   []*soakClient
	outbound map[string]any // of a stock client
}

func (in *soakInbound) tag() string { return in.config["tag"].(string) }

type soakClient struct {
	uuid   string
	user   int64
	limits map[string]any
}

func newSoakNode(w *world, random *rand.Rand, takeovers bool) *soakNode {
	w.t.Helper()
	n := &soakNode{
		world: w, rand: random, takeovers: takeovers, done: map[string]int{}, routing: map[string]any{},
		outbound: map[string]any{"tag": "direct", "protocol": "freedom"},
	}
	overTLS, reality := secureStreams(w.t)
	over := func(network string, settings map[string]any) streams {
		stream := transport(network, settings)
		return streams{stream, stream}
	}
	kinds := []protocolKind{
		kindVLESS("", streams{}), kindVLESS("xtls-rprx-vision", reality), kindTrojan(overTLS), kindShadowsocks(), kindVMess(over("ws", map[string]any{"path": "/ws"})),
		kindVLESS("", over("grpc", map[string]any{"serviceName": "svc"})), kindTrojan(over("httpupgrade", map[string]any{"path": "/up"})),
	}
	if !takeovers { // a new worker does not know their sessions
		kinds = append(kinds, kindVLESS("", over("xhttp", map[string]any{"path": "/x"})))
	}
	for _, k := range kinds {
		n.watched = append(n.watched, n.newInbound(k.protocol, k.config(n.port()), k.account))
		in := n.watched[len(n.watched)-1]
		in.outbound = k.outbound(in.config["port"].(int), in.client.uuid)
	}
	return n
}

func (n *soakNode) port() int {
	n.t.Helper()
	port, err := FreePort()
	must(n.t, err)
	return port
}

func (n *soakNode) newInbound(name string, config map[string]any, account func(string) map[string]any) *soakInbound {
	in := &soakInbound{account: account, client: n.newClient()}
	in.config = with(config, "tag", fmt.Sprintf("%s-%d", name, in.client.user))
	return in
}

func (n *soakNode) newClient() *soakClient {
	n.number++
	return &soakClient{uuid: fmt.Sprintf("%08x-1111-4111-8111-%012x", n.rand.Uint32(), n.number), user: n.number}
}

func (n *soakNode) inbounds() []*soakInbound { return slices.Concat(n.watched, n.extras) }

func (in *soakInbound) all() []*soakClient { return append([]*soakClient{in.client}, in.others...) }

func (n *soakNode) clientMap() map[string]wire.ClientRef {
	refs := map[string]wire.ClientRef{}
	for _, in := range n.inbounds() {
		for _, c := range in.all() {
			refs[c.uuid] = wire.ClientRef{UserID: c.user}
		}
	}
	return refs
}

// service returns services.xray.
func (n *soakNode) service() map[string]any {
	var inbounds []any
	for _, in := range n.inbounds() {
		var clients []any
		for _, c := range in.all() {
			account := in.account(c.uuid)
			maps.Copy(account, c.limits)
			clients = append(clients, account)
		}
		inbounds = append(inbounds, withClients(in.config, clients))
	}
	outbounds := []any{n.outbound}
	for i := range n.spare {
		outbounds = append(outbounds, map[string]any{"tag": fmt.Sprintf("spare-%d", i), "protocol": "blackhole"})
	}
	service := map[string]any{"inbounds": inbounds, "outbounds": outbounds, "routing": n.routing}
	if n.dns != nil {
		service["dns"] = n.dns
	}
	if n.policy != nil {
		service["policy"] = n.policy
	}
	if n.observatory != nil {
		service["observatory"] = n.observatory
	}
	return service
}

// change makes one change and returns a description of it. A global change concerns no inbound
// and no outbound.
func (n *soakNode) change(number int, global bool) string {
	pick := n.pick
	if global {
		pick = n.global
	}
	kind, what := pick(number)
	n.done[kind]++
	return kind + what
}

func (n *soakNode) global(number int) (kind, what string) {
	switch turn := n.done["dns"] + n.done["policy"] + n.done["observatory"]; {
	case n.takeovers && turn%5 == 4: // xray-core cannot change it while it runs
		n.observatory = map[string]any{"subjectSelector": []string{"direct"}, "probeInterval": fmt.Sprintf("%dh", number)}
		return "observatory", ""
	case turn%2 == 0:
		n.policy = map[string]any{"levels": map[string]any{"0": map[string]any{"connIdle": 300 + number}}}
		return "policy", ""
	}
	n.dns = map[string]any{"servers": []any{"localhost"}, "tag": fmt.Sprintf("dns-%d", number)}
	return "dns", ""
}

func (n *soakNode) pick(number int) (kind, what string) {
	in := n.inbounds()[n.rand.IntN(len(n.watched)+len(n.extras))]
	switch roll := n.rand.IntN(16); {
	case roll < 4 && len(in.others) < soakExtras:
		in.others = append(in.others, n.newClient())
		return "client added", " to " + in.tag()
	case roll < 7 && len(in.others) > 0:
		i := n.rand.IntN(len(in.others))
		in.others = slices.Delete(in.others, i, i+1)
		return "client removed", " from " + in.tag()
	case roll < 9:
		// Wide enough for the watched clients; the number makes each range differ.
		in.client.limits = map[string]any{"limitConnections": 10_000 + number, "rateDownBitsPerSecond": int64(8<<30 + number)}
		return "limits", " on " + in.tag()
	case roll == 9 && len(n.extras) < soakExtras:
		like := n.watched[n.rand.IntN(len(n.watched))]
		extra := n.newInbound("extra", with(maps.Clone(like.config), "port", n.port()), like.account)
		n.extras = append(n.extras, extra)
		return "inbound added", fmt.Sprintf(" %s like %s", extra.tag(), like.tag())
	case roll == 10 && len(n.extras) > 0:
		i := n.rand.IntN(len(n.extras))
		what := " " + n.extras[i].tag()
		n.extras = slices.Delete(n.extras, i, i+1)
		return "inbound removed", what
	case roll < 13:
		in.config["sniffing"] = map[string]any{"enabled": true, "routeOnly": true, "destOverride": []any{"tls"}, "domainsExcluded": []any{fmt.Sprintf("%d.test", number)}}
		return "inbound replaced", " " + in.tag()
	case roll == 13:
		n.spare = n.rand.IntN(4)
		n.outbound["streamSettings"] = map[string]any{"sockopt": map[string]any{"tcpKeepAliveIdle": 60 + number}}
		return "outbounds replaced", ""
	default:
		n.routing = map[string]any{"rules": []any{
			map[string]any{"domain": []any{fmt.Sprintf("full:%d.test", number)}, "outboundTag": "direct"},
			map[string]any{"user": []any{n.watched[n.rand.IntN(len(n.watched))].client.uuid}, "outboundTag": "direct"},
		}}
		return "routing replaced", ""
	}
}
