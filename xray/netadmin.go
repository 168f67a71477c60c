package xray

import (
	"bytes"
	"encoding/json"
	"slices"

	"nodeagent/xray/state"
)

// needsNetAdmin tells whether the state has something that CAP_NET_ADMIN may be needed for:
// WireGuard over a kernel interface, marks and transparent sockets (before Linux 5.17; afterwards
// CAP_NET_RAW is enough), algorithms of congestion that the kernel restricts, other socket options,
// and TUN. Any other state is run without the capability.
func needsNetAdmin(s state.State) bool {
	for _, in := range s.Inbounds {
		if in.Protocol == "tun" || setsSockets(in.Config) {
			return true
		}
	}
	return slices.ContainsFunc(s.Outbounds, func(out state.Outbound) bool {
		var view struct {
			Protocol string `json:"protocol"`
			Settings struct {
				NoKernelTun bool `json:"noKernelTun"`
			} `json:"settings"`
		}
		if json.Unmarshal(out.Config, &view) != nil {
			return false // the dry run refuses it
		}
		return view.Protocol == "wireguard" && !view.Settings.NoKernelTun || setsSockets(out.Config)
	})
}

// setsSockets tells whether an object has a member of sockopt that may need the capability, in any
// place.
func setsSockets(config json.RawMessage) bool {
	lower := bytes.ToLower(config)
	return slices.ContainsFunc([]string{`"mark"`, `"tproxy"`, `"tcpcongestion"`, `"customsockopt"`}, func(member string) bool {
		return bytes.Contains(lower, []byte(member))
	})
}
