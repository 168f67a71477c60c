package xray

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// checkUnixSocket finds a unix socket that Xray takes and does not make.
func checkUnixSocket(in Inbound) error {
	where, err := readListening(in.Config)
	if err != nil {
		return err
	}
	path, mode := UnixPath(where.Listen)
	if path == "" || in.Protocol == "tun" {
		return nil
	}
	if !slices.Contains(onUnixSockets, in.Protocol) {
		return fmt.Errorf("%s does not listen on a unix socket (%s): those that do are %s", in.Protocol, path, strings.Join(onUnixSockets, ", "))
	}
	if network := where.StreamSettings.Network; slices.Contains(overUDP, network) {
		return fmt.Errorf("%s does not listen on a unix socket (%s): choose another streamSettings.network", network, path)
	}
	if _, err := strconv.ParseUint(mode, 8, 32); mode != "" && err != nil {
		return fmt.Errorf("listen %q: the mode %q is none: want an octal number as 0666", where.Listen, mode)
	}
	return nil
}
