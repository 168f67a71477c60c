package nodeconfig

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/xray/state"
)

// Borrows returns the site whose TLS handshake a REALITY inbound borrows, with the names that
// clients ask for; empty for any other inbound.
func Borrows(p corestore.Protocol) string {
	v := state.Inbound{Config: p.Config}.View()
	if p.Protocol == mtproto || v.Stream.Security != "reality" {
		return ""
	}
	_, site := v.Stream.RealitySettings.Site()
	if site == "" {
		return ""
	}
	return fmt.Sprintf("%s for %s", site, strings.Join(v.Stream.RealitySettings.ServerNames, ", "))
}

// InTheOpen returns a warning where the inbound would send what clients send unencrypted over
// the network; empty where it would not. Over loopback and unix sockets, a proxy before the
// inbound has TLS.
func InTheOpen(p corestore.Protocol) string {
	if p.Protocol != "vless" && p.Protocol != "trojan" {
		return ""
	}
	v := state.Inbound{Config: p.Config}.View()
	var encryption string
	_ = json.Unmarshal(v.Settings.Decryption, &encryption)
	switch {
	case v.Stream.Security != "" && v.Stream.Security != "none",
		encryption != "" && encryption != "none",
		net.ParseIP(p.Listen).IsLoopback(), strings.HasPrefix(p.Listen, "/"), strings.HasPrefix(p.Listen, "@"):
		return ""
	}
	return fmt.Sprintf("protocol %s goes in the open: %s does not encrypt, so that everybody on the way reads what clients send, and what their secret is. Use --security reality or tls, or listen on 127.0.0.1 behind a proxy that has TLS", p.Tag, p.Protocol)
}
