package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
	"nodeagent/xray/trust"
)

const (
	// slowClients is how many clients may be on an inbound whose protocol tries every client's
	// key for a handshake with an unknown one. With 100,000 clients such a handshake takes
	// VMess 95 ms and Shadowsocks AEAD 344 ms of one processor.
	slowClients = 2000
	// SoonExpired is how long before its end a certificate gets a warning.
	SoonExpired = 7 * 24 * time.Hour
)

// Warnings returns a sentence for each setting of the state that works and is not wise, sorted
// by the inbounds' tags. It also reports references to outbounds that do not exist, which
// Clients accepts where they are old. now is the time for certificates.
func Warnings(s state.State, now time.Time) []string {
	return warningsOf(s, now, hostFiles.Read)
}

// WarningsOfText is Warnings on another host than the one that will serve: it reads no file.
func WarningsOfText(s state.State, now time.Time) []string {
	return warningsOf(s, now, nil)
}

func warningsOf(s state.State, now time.Time, read readFile) []string {
	var warnings []string
	for _, tag := range s.Tags() {
		in := s.Inbounds[tag]
		for _, text := range inboundWarnings(in, now, read) {
			warnings = append(warnings, fmt.Sprintf("inbound %q: %s", tag, text))
		}
	}
	for _, r := range dangling(s) {
		warnings = append(warnings, r.String())
	}
	return slices.Concat(warnings, spoofableAddresses(s), unknownInbounds(s), sharedIDs(s), userWarnings(s), unusedMembers(s))
}

// sharedIDs warns of inbounds with one nodeProtocolId: Core cannot tell their usage apart.
func sharedIDs(s state.State) (warnings []string) {
	first := map[int64]string{}
	for _, tag := range s.Tags() {
		id := s.Inbounds[tag].NodeProtocolID
		if other, taken := first[id]; taken && id != 0 {
			warnings = append(warnings, fmt.Sprintf("inbounds %q and %q both have nodeProtocolId %d, explicitly or by the number at the end of the tag, so that Core gets their usage as that of one: give each its own nodeProtocolId", other, tag, id))
		} else {
			first[id] = tag
		}
	}
	return warnings
}

func inboundWarnings(in state.Inbound, now time.Time, read readFile) []string {
	v := in.View()
	var all []string
	warn := func(is bool, format string, args ...any) {
		if is {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	method := strings.ToLower(v.Settings.Method)
	aead := in.Protocol == "shadowsocks" && !strings.HasPrefix(method, "2022-")
	security := v.Stream.Security
	unsecured := security == "" || security == "none"
	local := trust.OnLoopback(v.Listen)
	warn(len(in.Clients) > slowClients && (aead || in.Protocol == "vmess"),
		"%d clients: %s tries every client's key for a handshake with an unknown key; use VLESS, Trojan or Shadowsocks 2022 for more than %d", len(in.Clients), in.Protocol, slowClients)
	warn(in.Protocol == "trojan" && unsecured && !local, "trojan without TLS or REALITY sends passwords unencrypted: set streamSettings.security")
	warn(isOpenProxy(in) && !local, "anybody can use this proxy, because it asks for no account and listens on more than loopback: add accounts, or listen on 127.0.0.1")
	for i, c := range v.Stream.TLSSettings.Certificates {
		err := checkCertificate(c, now.Add(SoonExpired), read)
		warn(c.CertificateFile != "" && err != nil && !errors.Is(err, errNotRead) && security == "tls", "certificates[%d]%s, a week from now: %v", i, certificatePlace(c), err)
	}
	return append(all, addressWarnings(in)...)
}

// unknownInbounds returns a warning for each inbound that a rule names and that does not
// exist: the rule does not match for it.
func unknownInbounds(s state.State) []string {
	routing := s.RoutingView()
	var warnings []string
	for i, rule := range routing.Rules {
		tags, err := rawjson.UserNames(rule.InboundTag) // inboundTag has the same two forms as user
		if rule.InboundTag == nil || err != nil {
			continue
		}
		for _, tag := range tags {
			if _, there := s.Inbounds[tag]; !there {
				warnings = append(warnings, fmt.Sprintf("routing.rules[%d] names inbound %q, which does not exist: add the inbound or correct the name", i, tag))
			}
		}
	}
	return warnings
}

// isOpenProxy reports whether the inbound is a proxy that asks no client for an account.
func isOpenProxy(in state.Inbound) bool {
	v := in.View()
	switch in.Protocol {
	case "http":
		return len(v.Settings.Accounts) == 0
	case "socks", "mixed":
		return v.Settings.Auth != "password"
	}
	return false
}
