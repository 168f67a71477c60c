package check

import (
	"errors"
	"fmt"

	"nodeagent/xray/state"
	"nodeagent/xray/trust"
)

// checkTrustedProxies returns an error for trustedProxies on an inbound that cannot tell these
// proxies from other hosts.
func checkTrustedProxies(in state.Inbound) error {
	networks, err := trust.Proxies(in)
	if err != nil || networks == nil {
		return err
	}
	bindings, err := in.Bindings()
	if err != nil {
		return err
	}
	if len(bindings) == 0 {
		return errors.New("it has trustedProxies and listens on no port: leave trustedProxies out")
	}
	for _, b := range bindings {
		switch b.Network {
		case state.NetworkUnix:
			return fmt.Errorf("it has trustedProxies and listens on the unix socket %s, where connections have no address: leave trustedProxies out, and let the socket's mode say who may connect", b.Path)
		case "udp":
			return fmt.Errorf("it has trustedProxies and listens on %s, and over UDP an address can be forged: listen on TCP only, or leave trustedProxies out", b)
		}
	}
	return nil
}
