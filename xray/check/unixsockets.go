package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nodeagent/xray/state"
)

// checkUnixSocket finds a unix socket that Xray takes and does not make.
func checkUnixSocket(in state.Inbound) error {
	where, err := state.ReadListening(in.Config)
	if err != nil {
		return err
	}
	path, mode := state.UnixPath(where.Listen)
	if path == "" || in.Protocol == "tun" {
		return nil
	}
	if !slices.Contains(state.OnUnixSockets, in.Protocol) {
		return fmt.Errorf("%s does not listen on a unix socket (%s): those that do are %s", in.Protocol, path, strings.Join(state.OnUnixSockets, ", "))
	}
	if network := where.StreamSettings.Network; slices.Contains(state.OverUDP, network) {
		return fmt.Errorf("%s does not listen on a unix socket (%s): choose another streamSettings.network", network, path)
	}
	if _, err := strconv.ParseUint(mode, 8, 32); mode != "" && err != nil {
		return fmt.Errorf("listen %q: the mode %q is none: want an octal number as 0666", where.Listen, mode)
	}
	return nil
}
