package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"nodeagent/xray/state"
)

// unusedMembers returns warnings about members that panels write and Xray ignores.
func unusedMembers(s state.State) []string {
	var warnings []string
	unused := func(place string, is bool) {
		if is {
			warnings = append(warnings, place+" is not used by Xray: leave it out")
		}
	}
	for _, tag := range s.Tags() {
		in := s.Inbounds[tag]
		v := in.View()
		unusedOfOldVersions(fmt.Sprintf("inbound %q: ", tag), in.Config, unused)
		unused(fmt.Sprintf("inbound %q: allocate", tag), v.Allocate != nil)
		unused(fmt.Sprintf("inbound %q: settings.encryption", tag), in.Protocol == "vless" && v.Settings.Encryption != nil)
		unused(fmt.Sprintf("inbound %q: settings.decryption", tag), in.Protocol == "trojan" && v.Settings.Decryption != nil)
		if slices.ContainsFunc(in.Clients, func(c state.Client) bool { return c.Reading.PrivateKey }) {
			warnings = append(warnings, fmt.Sprintf("inbound %q: a peer's privateKey is only for the client, and the node does not keep it: leave it out", tag))
		}
	}
	for _, out := range s.Outbounds {
		unusedOfOldVersions(fmt.Sprintf("outbound %q: ", out.Tag), out.Config, unused)
	}
	routing := s.RoutingView()
	unused("routing.domainMatcher", routing.DomainMatcher != nil)
	for i, rule := range routing.Rules {
		unused(fmt.Sprintf("routing.rules[%d].domainMatcher", i), rule.DomainMatcher != nil)
	}
	return warnings
}

// unusedOfOldVersions calls unused for members of an inbound or outbound that newer versions
// of Xray have removed.
func unusedOfOldVersions(place string, raw json.RawMessage, unused func(place string, is bool)) {
	var config struct {
		Protocol string `json:"protocol"`
		Settings struct {
			Workers json.RawMessage `json:"workers"`
		} `json:"settings"`
		StreamSettings struct {
			KCPSettings struct {
				Congestion      json.RawMessage `json:"congestion"`
				ReadBufferSize  json.RawMessage `json:"readBufferSize"`
				WriteBufferSize json.RawMessage `json:"writeBufferSize"`
			} `json:"kcpSettings"`
			TLSSettings struct {
				ECHForceQuery json.RawMessage `json:"echForceQuery"`
			} `json:"tlsSettings"`
		} `json:"streamSettings"`
	}
	_ = json.Unmarshal(raw, &config) // the worker has decoded it before
	kcp := config.StreamSettings.KCPSettings
	unused(place+"settings.workers", strings.EqualFold(config.Protocol, "wireguard") && config.Settings.Workers != nil)
	unused(place+"kcpSettings.congestion", kcp.Congestion != nil)
	unused(place+"kcpSettings.readBufferSize", kcp.ReadBufferSize != nil)
	unused(place+"kcpSettings.writeBufferSize", kcp.WriteBufferSize != nil)
	unused(place+"tlsSettings.echForceQuery", config.StreamSettings.TLSSettings.ECHForceQuery != nil)
}
