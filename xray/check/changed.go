package check

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/xray/parse"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// Clients returns the faults that any change of a state can bring in, also a change of nothing
// but clients. The engine calls it before every apply.
//
// from is the state that the worker should run now, to the new one. A fault concerns a client
// that from has not (another account makes another client), or an inbound that newly breaks
// its clients, or a reference to an outbound that was broken by this change. The checks are:
//
//   - WireGuard: no two peers have one public key (checkPeers).
//   - No member of a new client is written in other case (checkClientCase), or unknown to
//     Xray (checkClientMembers).
//   - A new client has a secret, where the protocol wants one (checkSecrets), and a key of the
//     right length (checkKeys).
//   - No new client has the secret of another client (checkPasswords).
//   - The flow xtls-rprx-vision works on the inbound (checkVision).
//   - Rules, balancers and outbounds name outbounds that exist (checkReferences).
//
// For example, a trojan client without a password that from has does not refuse a change of
// another client. The error joins a fault for each client or reference that is wrong; each
// fault names its part, so that the agent can leave it out.
func Clients(from, to state.State) error {
	clients := errors.Join(checkPeers(from, to), checkClientCase(from, to), checkClientMembers(from, to), checkSecrets(from, to), checkKeys(from, to), checkPasswords(from, to), checkVision(from, to))
	return errors.Join(fault.In(fault.Client, clients), checkReferences(from, to))
}

// Changed returns the faults of the parts that differ between from and to, except clients,
// which Clients checks. The engine calls it, after Clients, for a change that needs a dry run:
// one that changes more than clients.
//
// Xray accepts these settings silently and then misbehaves on them. Parts that from has are
// not looked at, so that neither a certificate that has expired since nor a check that is
// newer than the configuration takes down what already runs. The order is:
//
//  1. Ports and unix sockets that inbounds newly share (state.CheckPorts). Of inbounds whose
//     Config differs: spelling of members, accounts, certificates at the time now, transports,
//     trusted proxies (changedInbounds).
//  2. Outbounds whose Config differs, and circles of outbounds that from has not.
//  3. Routing and DNS: findings that from has not, and, where the routing or the DNS differs,
//     spelling, tags and regular expressions (changedRouting). The names of clients in rules
//     are no difference.
//
// The error joins the faults of all inbounds and outbounds and the first kind of fault of the
// routing. A fault over a file or the clock can be retried (fault.Fault.Retry).
func Changed(from, to state.State, now time.Time) error {
	return changed(from, to, now, hostFiles.Read)
}

// ChangedText is Changed on another host than the one that will serve: it reads no file. A
// fault that can be retried is left to the node.
func ChangedText(from, to state.State, now time.Time) error {
	return changed(from, to, now, nil)
}

func changed(from, to state.State, now time.Time, read readFile) error {
	inbounds := fault.In(fault.Inbound, changedInbounds(from, to, now, read))
	outbounds := fault.In(fault.Outbound, errors.Join(checkDialing(from, to), firstNew(circularDialing(from), circularDialing(to))))
	return errors.Join(inbounds, outbounds, changedRouting(from, to))
}

// changedInbounds returns the faults of the inbounds that differ.
func changedInbounds(from, to state.State, now time.Time, read readFile) error {
	all := []error{state.CheckPorts(from, to, true)}
	for _, tag := range to.Tags() {
		in := to.Inbounds[tag]
		if slices.Equal(from.Inbounds[tag].Config, in.Config) {
			continue
		}
		for _, check := range []func(state.Inbound) error{checkNames, checkUnixSocket, checkProxyAuth, checkSniffing, checkTrustedProxies, checkStream} {
			if err := check(in); err != nil {
				all = append(all, fault.InText(tag, "inbound %q: %v", tag, err))
			}
		}
		if err := checkAccounts(from.Inbounds[tag], in); err != nil {
			all = append(all, fault.InText(tag, "inbound %q: %v", tag, err))
		}
		all = append(all, checkCertificates(in, now, read))
	}
	return errors.Join(all...)
}

// changedRouting returns the first fault of the routing and of DNS.
func changedRouting(from, to state.State) error {
	for _, find := range []func(state.State) []*fault.Fault{routingFindings, userFindings, networkFindings} {
		if err := firstNew(find(from), find(to)); err != nil {
			return fault.In(fault.Routing, err)
		}
	}
	if slices.Equal(state.RoutingWithoutUsers(from.Routing), state.RoutingWithoutUsers(to.Routing)) && slices.Equal(from.DNS, to.DNS) {
		return nil
	}
	if err := errors.Join(checkRoutingCase(to), checkTagsOfRules(to)); err != nil {
		return fault.In(fault.Routing, err)
	}
	return checkExpressions(to)
}

// firstNew returns the first fault of found that is not in before, nil for none.
func firstNew(before, found []*fault.Fault) error {
	for _, finding := range found {
		if !slices.ContainsFunc(before, func(old *fault.Fault) bool { return *old == *finding }) {
			return finding
		}
	}
	return nil
}

// checkPeers returns a fault where two peers of a WireGuard inbound have one public key, and at least
// one of them is new.
func checkPeers(from, to state.State) error {
	var all []error
	for _, tag := range to.Tags() {
		in, before := to.Inbounds[tag], from.Inbounds[tag]
		if in.Protocol != "wireguard" {
			continue
		}
		for first, peer := range twins(before, in) {
			if parse.PublicKeyOf(first.Account) == parse.PublicKeyOf(peer.Account) {
				all = append(all, ofClient(fault.InText(tag, "inbound %q: two peers have one publicKey, so packets of one could not be told from packets of the other: give each peer another key", tag), newOf(before.Clients, first, peer)))
			}
		}
	}
	return errors.Join(all...)
}

// checkNames returns an error for members that Xray would read and node-agent would not find,
// and two accounts with one user.
func checkNames(in state.Inbound) error {
	members, err := rawjson.Object(in.Config)
	if err != nil {
		return err
	}
	if err := checkCase(members, "tag", "protocol", "listen", "port", "settings", "streamSettings", "nodeProtocolId", "protocolName", "trustedProxies"); err != nil {
		return err
	}
	settings, err := rawjson.Object(members["settings"])
	if members["settings"] == nil || err != nil {
		return nil //nolint:nilerr // the worker refuses settings that are no object
	}
	if err := checkCase(settings, "clients", "accounts", "users", "peers", "method", "email", "network", "allowedNetwork"); err != nil {
		return err
	}
	users := map[string]bool{}
	for _, c := range in.Clients {
		if c.User != "" && users[c.User] {
			return fmt.Errorf("two accounts have the user %q, so only one of them could connect: give one of them another user", c.User)
		}
		users[c.User] = true
	}
	return nil
}

// checkTagsOfRules returns a fault where two balancers or two rules have one tag: Xray would
// use only the last one.
func checkTagsOfRules(s state.State) error {
	routing := s.RoutingView()
	balancers, rules := map[string]bool{}, map[string]bool{}
	for _, b := range routing.Balancers {
		if balancers[b.Tag] {
			return fault.InText(b.Tag, "two balancers have the tag %q, and Xray would use only the last one: give one of them another tag", b.Tag)
		}
		balancers[b.Tag] = true
	}
	for i, rule := range routing.Rules {
		if rule.RuleTag != "" && rules[rule.RuleTag] {
			return fault.InText(rule.RuleTag, "routing.rules[%d] has the ruleTag %q of another rule: give it another ruleTag", i, rule.RuleTag)
		}
		rules[rule.RuleTag] = true
	}
	return nil
}
