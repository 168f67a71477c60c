package xray

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// networkUnix is the Network of a Binding to a unix socket.
const networkUnix = "unix"

// onUnixSockets are the protocols that listen on unix sockets.
var onUnixSockets = []string{"vless", "vmess", "trojan", "http"}

// overUDP are the transports that have no TCP, and no unix sockets.
var overUDP = []string{"kcp", "mkcp", "hysteria"}

// UnixPath reads an inbound's listen member: the path of a unix socket, "@name" where
// it is abstract, and its mode, in octal, where one is given. The path is empty of what
// is no unix socket.
func UnixPath(listen string) (path, mode string) {
	listen = strings.TrimSpace(listen)
	switch {
	case strings.HasPrefix(listen, "@"):
		return listen, ""
	case !strings.HasPrefix(listen, "/"):
		return "", ""
	}
	if parts := strings.Split(listen, ","); len(parts) == 2 {
		listen, mode = parts[0], parts[1]
	}
	return filepath.Clean(listen), mode
}

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
