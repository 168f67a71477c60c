package check

import (
	"fmt"

	"nodeagent/xray/state"
)

// checkProxyAuth finds a SOCKS proxy that looks closed and is open: Xray asks for an
// account with auth "password" alone, and takes every other word for "noauth".
func checkProxyAuth(in state.Inbound) error {
	if state.Protocols[in.Protocol].Listens != state.OnTCPAndUDP {
		return nil
	}
	settings := in.View().Settings
	switch auth := settings.Auth; {
	case auth == "password":
	case auth != "" && auth != "noauth":
		return fmt.Errorf("settings.auth is %q: Xray would ask nobody for an account; write \"password\" or \"noauth\"", auth)
	case len(settings.Accounts) > 0:
		return fmt.Errorf("it has accounts and settings.auth is %q: anybody could use it without one; write \"auth\": \"password\"", auth)
	}
	return nil
}
