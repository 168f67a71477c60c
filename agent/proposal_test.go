package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// partDocument draws a document of up to three inbounds and outbounds.
func partDocument(t *rapid.T, name string) []byte {
	clients := map[string]wire.ClientRef{}
	var inbounds, outbounds []any
	protocols := []string{"vless", "trojan", "socks"}
	for i := range 3 {
		if !rapid.Bool().Draw(t, fmt.Sprintf("%s has inbound %d", name, i)) {
			continue
		}
		var list []any
		for c := range 4 {
			secret := rapid.IntRange(0, 2).Draw(t, fmt.Sprintf("%s: secret of client %d of inbound %d", name, c, i))
			if secret == 0 {
				continue
			}
			key := fmt.Sprintf("client-%d", c)
			clients[key] = wire.ClientRef{UserID: int64(c + 1)}
			switch protocols[i] {
			case "vless":
				list = append(list, map[string]any{"email": key, "id": fmt.Sprintf("%08d-1111-4111-8111-%012d", secret, c)})
			case "trojan":
				list = append(list, map[string]any{"email": key, "password": fmt.Sprintf("secret %d of %d", secret, c)})
			default:
				list = append(list, map[string]any{"user": key, "pass": fmt.Sprintf("secret %d", secret)})
			}
		}
		settings := map[string]any{"clients": list}
		if protocols[i] == "socks" {
			settings = map[string]any{"auth": "password", "accounts": list}
		}
		inbounds = append(inbounds, map[string]any{
			"tag": fmt.Sprintf("in-%d", i+1), "protocol": protocols[i], "settings": settings,
			"port": 1000*(i+1) + rapid.IntRange(0, 1).Draw(t, fmt.Sprintf("%s: port of inbound %d", name, i)),
		})
	}
	for i := range 3 {
		if rapid.Bool().Draw(t, fmt.Sprintf("%s has outbound %d", name, i)) {
			outbounds = append(outbounds, map[string]any{
				"tag": fmt.Sprintf("out-%d", i), "protocol": "freedom",
				"sendThrough": fmt.Sprintf("127.0.0.%d", rapid.IntRange(1, 2).Draw(t, fmt.Sprintf("%s: outbound %d", name, i))),
			})
		}
	}
	xray := map[string]any{"inbounds": inbounds, "outbounds": outbounds}
	if rule := rapid.IntRange(0, 2).Draw(t, name+": routing"); rule > 0 {
		xray["routing"] = map[string]any{"rules": []any{map[string]any{"user": []string{"client-1"}, "outboundTag": "out-0", "port": rule}}}
	}
	raw, err := json.Marshal(xray)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(wire.NodeConfig{Revision: 1, ClientMap: clients, Services: wire.Services{Xray: raw}})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// brokenParts returns a fault of each part of next that is broken and does not run like that.
func brokenParts(running, next state.State, broken map[part]bool) error {
	var all []error
	for _, op := range state.Diff(running, next) {
		p := part{kind: fault.Inbound, tag: op.Tag}
		switch op.Kind {
		case state.OpPutOutbound:
			p.kind = fault.Outbound
			if strings.Contains(string(op.Outbound.Config), "blackhole") {
				continue
			}
		case state.OpSetRouting:
			p = part{kind: fault.Routing}
			if string(state.RoutingWithoutUsers(op.Routing)) == string(state.RoutingWithoutUsers(running.Routing)) {
				continue // the rules that run, for the clients that are left
			}
		case state.OpAddUsers:
			for _, c := range op.Users {
				if broken[part{fault.Client, op.Tag, c.Name + c.User}] {
					all = append(all, &fault.Fault{Kind: fault.Client, Tag: op.Tag, ClientEmail: c.Email, Message: "broken"})
				}
			}
			continue
		case state.OpReplaceInbound:
			before, err := running.Inbounds[op.Tag].Without(func(c *state.Client) bool { return !op.Inbound.HasAccount(c.Account) })
			if err == nil && string(before.Config) == string(op.Inbound.Config) {
				continue // what runs, without some accounts
			}
		case state.OpAddInbound:
		case state.OpRemoveOutbound, state.OpDefaultOutbound, state.OpSetPolicy, state.OpSetDNS, state.OpReleaseInbound, state.OpRemoveInbound, state.OpUpdateUsers, state.OpRemoveUsers:
			continue
		}
		if broken[p] {
			all = append(all, &fault.Fault{Kind: p.kind, Tag: p.tag, Message: "broken"})
		}
	}
	return errors.Join(all...)
}

// keysWithSecrets returns the clients of an inbound, each with what it proves itself with.
func keysWithSecrets(in state.Inbound) map[string]*state.Client {
	all := map[string]*state.Client{}
	for _, c := range in.Clients {
		all[c.Key] = c
	}
	return all
}

// Whatever subset of the parts of a document fails: nobody is served whom the document lets
// in no longer, nobody else is cut, and every part that does not fail runs as it is wanted.
func TestWhateverFailsNobodyRemovedIsServed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		running, unread, err := parseConfig(partDocument(t, "running"))
		if err != nil || len(unread) > 0 {
			t.Fatal(err, unread)
		}
		wanted, unread, err := parseConfig(partDocument(t, "wanted"))
		if err != nil || len(unread) > 0 {
			t.Fatal(err, unread)
		}
		broken := map[part]bool{}
		for tag, in := range wanted.xray.Inbounds {
			broken[part{kind: fault.Inbound, tag: tag}] = rapid.IntRange(0, 3).Draw(t, tag+" fails") == 0
			for _, c := range in.Clients {
				if in.Protocol != "socks" {
					broken[part{fault.Client, tag, c.Name + c.User}] = rapid.IntRange(0, 5).Draw(t, tag+" "+c.Key+" fails") == 0
				}
			}
		}
		for _, out := range wanted.xray.Outbounds {
			broken[part{kind: fault.Outbound, tag: out.Tag}] = rapid.IntRange(0, 3).Draw(t, out.Tag+" fails") == 0
		}
		broken[part{kind: fault.Routing}] = rapid.IntRange(0, 3).Draw(t, "routing fails") == 0

		p := newProposal(wanted, running, nil)
		var result desired
		for range maxRefusals {
			if result, err = p.desired(); err != nil {
				t.Fatal(err)
			}
			if err = brokenParts(running.xray, result.xray, broken); err == nil || !p.refuse(err) {
				break
			}
		}
		if err != nil {
			t.Fatalf("no proposal is taken: %v", err)
		}
		checkProposal(t, running.xray, wanted.xray, result.xray, p)
	})
}

func checkProposal(t *rapid.T, running, wanted, result state.State, p *proposal) {
	for tag, in := range result.Inbounds {
		lets, ran := keysWithSecrets(wanted.Inbounds[tag]), keysWithSecrets(running.Inbounds[tag])
		for key, c := range keysWithSecrets(in) {
			if still, is := lets[key]; !is || !c.SameCredential(still) {
				t.Fatalf("inbound %s serves %s, whom the document does not let in like that", tag, key)
			}
		}
		have := keysWithSecrets(in)
		for key, c := range ran {
			still, is := lets[key]
			refused := slices.ContainsFunc(p.refused, func(f *fault.Fault) bool {
				return is && f.Kind == fault.Client && f.Tag == tag && f.ClientEmail == still.Email
			})
			if _, serves := have[key]; is && c.SameCredential(still) && !serves && !refused {
				t.Fatalf("inbound %s serves %s no more, whom the document lets in", tag, key)
			}
		}
		if _, is := wanted.Inbounds[tag]; !is {
			t.Fatalf("inbound %s runs, which the document does not have", tag)
		}
	}
	routingRefused := p.parts[part{kind: fault.Routing}]
	for tag, in := range wanted.Inbounds {
		_, ran := running.Inbounds[tag]
		switch is, runs := result.Inbounds[tag]; {
		case p.parts[part{kind: fault.Inbound, tag: tag}] && ran != runs:
			t.Fatalf("the refused inbound %s runs: %v, it ran: %v", tag, runs, ran)
		case p.parts[part{kind: fault.Inbound, tag: tag}]:
		case routingRefused && !ran && runs:
			t.Fatalf("the new inbound %s runs without its routing", tag)
		case routingRefused && !ran:
		case !runs || string(is.Config) != string(in.Config) && in.Protocol != "socks":
			t.Fatalf("inbound %s does not run as it is wanted", tag)
		}
	}
	for i, out := range wanted.Outbounds {
		is := result.Outbounds[i]
		refused := p.parts[part{kind: fault.Outbound, tag: out.Tag}]
		old := running.OutboundIndex(out.Tag)
		switch {
		case is.Tag != out.Tag:
			t.Fatalf("outbound %d is %s, want %s: the default would be another one", i, is.Tag, out.Tag)
		case !refused && string(is.Config) != string(out.Config):
			t.Fatalf("outbound %s does not run as it is wanted", out.Tag)
		case refused && old < 0 && !strings.Contains(string(is.Config), "blackhole"):
			t.Fatalf("the refused outbound %s lets traffic out: %s", out.Tag, is.Config)
		case refused && old >= 0 && string(is.Config) != string(running.Outbounds[old].Config):
			t.Fatalf("the refused outbound %s does not keep its form", out.Tag)
		}
	}
	// The rules name the clients that run, under their names inside the worker.
	names := map[string]bool{"nobody": true}
	for _, in := range result.Inbounds {
		for _, c := range in.Clients {
			names[c.Email] = true
		}
	}
	for _, rule := range result.RoutingView().Rules {
		var users []string
		if err := json.Unmarshal(rule.User, &users); err != nil {
			t.Fatal(err)
		}
		for _, user := range users {
			if !names[user] {
				t.Fatalf("a rule names %s, which is no client of %v", user, slices.Sorted(maps.Keys(names)))
			}
		}
	}
}
