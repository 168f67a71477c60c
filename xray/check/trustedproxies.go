package check

import (
	"errors"
	"fmt"

	"nodeagent/xray/state"
	"nodeagent/xray/trust"
)

// checkTrustedProxies refuses trustedProxies where they could not be told from others.
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
		return errors.New("trustedProxies without a port that is listened on")
	}
	for _, b := range bindings {
		switch b.Network {
		case state.NetworkUnix:
			return fmt.Errorf("trustedProxies on the unix socket %s: who connects has no address there; the socket's mode says who may", b.Path)
		case "udp":
			return fmt.Errorf("trustedProxies on %s: over UDP nobody's address is sure; they need TCP alone", b)
		}
	}
	return nil
}
