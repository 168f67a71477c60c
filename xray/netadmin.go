package xray

import (
	"bytes"
	"encoding/json"
	"slices"

	"nodeagent/xray/state"
)

// needsNetAdmin tells whether the state has something that CAP_NET_ADMIN may be needed for:
// WireGuard over a kernel interface, marks and transparent sockets (before Linux 5.17; afterwards
// CAP_NET_RAW is enough), and TUN. Any other state is run without the capability.
func needsNetAdmin(s state.State) bool {
	for _, in := range s.Inbounds {
		if in.Protocol == "tun" || marksPackets(in.Config) {
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
		return view.Protocol == "wireguard" && !view.Settings.NoKernelTun || marksPackets(out.Config)
	})
}

// marksPackets tells whether an object has a member mark or tproxy, in any place.
func marksPackets(config json.RawMessage) bool {
	lower := bytes.ToLower(config)
	return bytes.Contains(lower, []byte(`"mark"`)) || bytes.Contains(lower, []byte(`"tproxy"`))
}
