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

// Clients checks what any change can break, also one of clients alone.
func Clients(from, to state.State) error {
	clients := errors.Join(checkPeers(from, to), checkClientCase(from, to), checkSecrets(from, to), checkPasswords(from, to), checkVision(from, to))
	return errors.Join(fault.In(fault.Client, clients), checkReferences(from, to))
}

// Changed checks what Xray takes without a word and should not, of the parts that
// change: what runs is taken down neither by a certificate that has expired
// meanwhile nor by a check that is younger than its configuration.
func Changed(from, to state.State, now time.Time) error {
	inbounds := fault.In(fault.Inbound, changedInbounds(from, to, now))
	outbounds := fault.In(fault.Outbound, errors.Join(checkDialing(from, to), firstNew(circularDialing(from), circularDialing(to))))
	return errors.Join(inbounds, outbounds, changedRouting(from, to))
}

// changedInbounds returns a fault of each inbound that changes and has one.
func changedInbounds(from, to state.State, now time.Time) error {
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
		all = append(all, checkCertificates(in, now))
	}
	return errors.Join(all...)
}

// changedRouting returns the first fault of the routing and of DNS, where they change.
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

// firstNew returns the first finding that the state before has not, nil for none.
func firstNew(before, found []*fault.Fault) error {
	for _, finding := range found {
		if !slices.ContainsFunc(before, func(old *fault.Fault) bool { return *old == *finding }) {
			return finding
		}
	}
	return nil
}

// checkPeers finds two peers of one key, where a tunnel's peers change: nobody would know
// whose a packet is.
func checkPeers(from, to state.State) error {
	var all []error
	for _, tag := range to.Tags() {
		in := to.Inbounds[tag]
		if in.Protocol != "wireguard" || slices.EqualFunc(from.Inbounds[tag].Clients, in.Clients, func(a, b state.Client) bool { return a.Email == b.Email }) {
			continue
		}
		keys := map[string]bool{}
		for _, c := range in.Clients {
			key := parse.PublicKeyOf(c.Account)
			if keys[key] {
				all = append(all, ofClient(fault.InText(tag, "inbound %q: two peers have one publicKey: nobody would know whose a packet is", tag), &c))
			}
			keys[key] = true
		}
	}
	return errors.Join(all...)
}

// checkNames finds members that Xray would read and we would not.
func checkNames(in state.Inbound) error {
	members, err := rawjson.Object(in.Config)
	if err != nil {
		return err
	}
	if err := checkCase(members, "tag", "protocol", "listen", "port", "settings", "streamSettings", "nodeProtocolId", "protocolName", "trustedProxies"); err != nil {
		return err
	}
	if string(members["listen"]) == `""` && state.Protocols[in.Protocol].Listens != state.OnNothing {
		return errors.New("listen is empty: leave it out or give an address")
	}
	settings, err := rawjson.Object(members["settings"])
	if members["settings"] == nil || err != nil {
		return nil //nolint:nilerr // what its settings are if no object the worker says
	}
	if err := checkCase(settings, "clients", "accounts", "users", "peers", "method", "email", "network", "allowedNetwork"); err != nil {
		return err
	}
	users := map[string]bool{}
	for _, c := range in.Clients {
		if c.User != "" && users[c.User] {
			return fmt.Errorf("two accounts have the user %q: only one of them could connect", c.User)
		}
		users[c.User] = true
	}
	return nil
}

// checkTagsOfRules finds balancers and rules that have one tag: Xray would use the
// last one alone.
func checkTagsOfRules(s state.State) error {
	routing := s.RoutingView()
	balancers, rules := map[string]bool{}, map[string]bool{}
	for _, b := range routing.Balancers {
		if balancers[b.Tag] {
			return fault.InText(b.Tag, "two balancers have the tag %q: Xray would use the last one alone", b.Tag)
		}
		balancers[b.Tag] = true
	}
	for i, rule := range routing.Rules {
		if rule.RuleTag != "" && rules[rule.RuleTag] {
			return fault.InText(rule.RuleTag, "routing.rules[%d] has the ruleTag %q of another rule", i, rule.RuleTag)
		}
		rules[rule.RuleTag] = true
	}
	return nil
}
