package check

import (
	"fmt"

	"nodeagent/xray/state"
)

// checkProxyAuth returns an error for a SOCKS proxy that looks closed and is open. Xray asks
// for an account only with auth "password"; it treats any other value as "noauth".
func checkProxyAuth(in state.Inbound) error {
	if state.Protocols[in.Protocol].Listens != state.OnTCPAndUDP {
		return nil
	}
	settings := in.View().Settings
	switch auth := settings.Auth; {
	case auth == "password":
	case auth != "" && auth != "noauth":
		return fmt.Errorf("settings.auth is %q, so Xray would ask no client for an account: write \"password\" or \"noauth\"", auth)
	case len(settings.Accounts) > 0:
		return fmt.Errorf("it has accounts and settings.auth is %q, so anybody could use it without an account: write \"auth\": \"password\"", auth)
	}
	return nil
}
