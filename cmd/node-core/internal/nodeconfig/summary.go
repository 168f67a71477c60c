package nodeconfig

import (
	"encoding/json"

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
	var in struct {
		StreamSettings struct {
			RealitySettings struct {
				ShortIDs []string `json:"shortIds"`
			} `json:"realitySettings"`
		} `json:"streamSettings"`
	}
	_ = json.Unmarshal(p.Config, &in)
	e, _ := readEndpoint(p) // what no link can say has no summary either
	s.Transport, s.Security, s.SNI, s.Borrows = e.Stream.Network, security(p), e.Stream.ServerName, Borrows(p)
	s.PublicKey, s.ShortIDs = e.Stream.PublicKey, in.StreamSettings.RealitySettings.ShortIDs
	return s
}
