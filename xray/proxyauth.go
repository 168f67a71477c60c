package xray

import (
	"encoding/json"
	"fmt"
)

// checkProxyAuth finds a SOCKS proxy that looks closed and is open: Xray asks for an
// account with auth "password" alone, and takes every other word for "noauth".
func checkProxyAuth(in Inbound) error {
	if in.Protocol != "socks" && in.Protocol != "mixed" {
		return nil
	}
	var config struct {
		Settings struct {
			Auth     string            `json:"auth"`
			Accounts []json.RawMessage `json:"accounts"`
		} `json:"settings"`
	}
	_ = json.Unmarshal(in.Config, &config) // what can't be read the worker names
	switch auth := config.Settings.Auth; {
	case auth == "password":
	case auth != "" && auth != "noauth":
		return fmt.Errorf("settings.auth is %q: Xray would ask nobody for an account; write \"password\" or \"noauth\"", auth)
	case len(config.Settings.Accounts) > 0:
		return fmt.Errorf("it has accounts and settings.auth is %q: anybody could use it without one; write \"auth\": \"password\"", auth)
	}
	return nil
}
