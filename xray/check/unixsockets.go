package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nodeagent/xray/state"
)

// checkUnixSocket returns an error for a unix socket that Xray accepts and does not make.
func checkUnixSocket(in state.Inbound) error {
	v := in.View()
	path, mode := state.UnixPath(v.Listen)
	if path == "" || state.Protocols[in.Protocol].Listens == state.OnNothing {
		return nil
	}
	if !state.Protocols[in.Protocol].UnixSocket {
		return fmt.Errorf("%s does not listen on a unix socket (%s): those that do are %s", in.Protocol, path, strings.Join(onUnixSockets(), ", "))
	}
	if network := v.Stream.Network; slices.Contains(state.OverUDP, network) {
		return fmt.Errorf("%s does not listen on a unix socket (%s): choose another streamSettings.network", network, path)
	}
	if _, err := strconv.ParseUint(mode, 8, 32); mode != "" && err != nil {
		return fmt.Errorf("listen %q: the mode %q is not an octal number: want for example 0666", v.Listen, mode)
	}
	return nil
}

// onUnixSockets returns the protocols that can listen on unix sockets, sorted.
func onUnixSockets() []string {
	var names []string
	for name, protocol := range state.Protocols {
		if protocol.UnixSocket {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
