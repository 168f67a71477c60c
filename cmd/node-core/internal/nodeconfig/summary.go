package nodeconfig

import (
	"cmp"
	"encoding/json"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// Summarize returns the summary of an inbound.
func Summarize(p corestore.Protocol) (s coreapi.ProtocolSummary) {
	if p.Protocol == mtproto {
		var in mtprotoInbound
		_ = json.Unmarshal(p.Config, &in) // it was checked when it was stored
		for _, domain := range in.TLSDomains {
			s.Modes = append(s.Modes, "tls "+domain)
		}
		if in.Modes.Secure {
			s.Modes = append(s.Modes, "secure")
		}
		if in.Modes.Classic {
			s.Modes = append(s.Modes, "classic")
		}
		return s
	}
	var in linkSettings
	_ = json.Unmarshal(p.Config, &in)
	s.Transport = strings.ToLower(in.StreamSettings.Network)
	if other, is := linkNetworks[s.Transport]; is {
		s.Transport = other
	}
	s.Security, s.SNI, s.Borrows = security(p), cmp.Or(p.Link.SNI, in.StreamSettings.TLSSettings.ServerName), Borrows(p)
	if s.Security == "reality" {
		s.PublicKey, _ = publicKey(in.StreamSettings.RealitySettings.PrivateKey)
		s.ShortIDs = in.StreamSettings.RealitySettings.ShortIDs
	}
	return s
}
