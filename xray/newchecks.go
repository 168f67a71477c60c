package xray

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// checkAny checks what any change can break, also one of clients alone.
func checkAny(from, to State) error {
	return errors.Join(checkPeers(from, to), checkClientCase(from, to), checkSecrets(from, to), checkPasswords(from, to), checkVision(from, to), checkReferences(from, to))
}

// checkNew checks what Xray takes without a word and should not, of the parts that
// change: what runs is taken down neither by a certificate that has expired
// meanwhile nor by a check that is younger than its configuration.
func checkNew(from, to State, now time.Time) error {
	if err := checkPorts(to, true); err != nil {
		return err
	}
	for _, tag := range to.Tags() {
		in := to.Inbounds[tag]
		if slices.Equal(from.Inbounds[tag].Config, in.Config) {
			continue
		}
		for _, check := range []func(Inbound) error{checkNames, checkUnixSocket, checkProxyAuth, checkSniffing, checkTrustedProxies, checkStream} {
			if err := check(in); err != nil {
				return invalid(tag, "inbound %q: %v", tag, err)
			}
		}
		if err := checkAccounts(from.Inbounds[tag], in); err != nil {
			return invalid(tag, "inbound %q: %v", tag, err)
		}
		if err := checkCertificates(in, now); err != nil {
			return err
		}
	}
	if err := checkDialing(from, to); err != nil {
		return err
	}
	for _, find := range []func(State) []*InvalidError{circleFindings, routingFindings, userFindings, networkFindings} {
		if err := firstNew(find(from), find(to)); err != nil {
			return err
		}
	}
	if slices.Equal(withoutUsers(from.Routing), withoutUsers(to.Routing)) && slices.Equal(from.DNS, to.DNS) {
		return nil
	}
	if err := checkRoutingCase(to); err != nil {
		return err
	}
	if err := checkTagsOfRules(to); err != nil {
		return err
	}
	return checkExpressions(to)
}

// firstNew returns the first finding that the state before has not, nil for none.
func firstNew(before, found []*InvalidError) error {
	for _, finding := range found {
		if !slices.ContainsFunc(before, func(old *InvalidError) bool { return *old == *finding }) {
			return finding
		}
	}
	return nil
}

// checkPeers finds two peers of one key, where a tunnel's peers change: nobody would know
// whose a packet is.
func checkPeers(from, to State) error {
	for _, tag := range to.Tags() {
		in := to.Inbounds[tag]
		if in.Protocol != "wireguard" || slices.EqualFunc(from.Inbounds[tag].Clients, in.Clients, func(a, b Client) bool { return a.Email == b.Email }) {
			continue
		}
		keys := map[string]bool{}
		for _, c := range in.Clients {
			key := publicKeyOf(c.Account)
			if keys[key] {
				return invalid(tag, "inbound %q: two peers have one publicKey: nobody would know whose a packet is", tag)
			}
			keys[key] = true
		}
	}
	return nil
}

// checkNames finds members that Xray would read and we would not.
func checkNames(in Inbound) error {
	members, err := object(in.Config)
	if err != nil {
		return err
	}
	if err := inCase(members, "tag", "protocol", "listen", "port", "settings", "streamSettings", "nodeProtocolId", "protocolName", "trustedProxies"); err != nil {
		return err
	}
	if string(members["listen"]) == `""` && in.Protocol != "tun" {
		return errors.New("listen is empty: leave it out or give an address")
	}
	settings, err := object(members["settings"])
	if members["settings"] == nil || err != nil {
		return nil //nolint:nilerr // what its settings are if no object the worker says
	}
	if err := inCase(settings, "clients", "accounts", "peers", "method", "email"); err != nil {
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
func checkTagsOfRules(s State) error {
	var routing routes
	if s.Routing == nil {
		return nil
	}
	if err := json.Unmarshal(s.Routing, &routing); err != nil {
		return invalid("", "read routing: %v", err)
	}
	balancers, rules := map[string]bool{}, map[string]bool{}
	for _, b := range routing.Balancers {
		if balancers[b.Tag] {
			return invalid(b.Tag, "two balancers have the tag %q: Xray would use the last one alone", b.Tag)
		}
		balancers[b.Tag] = true
	}
	for i, rule := range routing.Rules {
		if rule.RuleTag != "" && rules[rule.RuleTag] {
			return invalid(rule.RuleTag, "routing.rules[%d] has the ruleTag %q of another rule", i, rule.RuleTag)
		}
		rules[rule.RuleTag] = true
	}
	return nil
}
