package worker

import (
	"crypto/rand"

	"github.com/xtls/xray-core/infra/conf"
)

// trustNoForwarding makes an inbound over HTTP believe nobody's X-Forwarded-For,
// unless the configuration says whom: else a client could pick its own address.
// xray-core believes a request that has one of the headers named, and every
// request where none is named (transport/internet/websocket/hub.go), so one is
// named that nobody knows. Over gRPC the header is another one: see knowSource.
func trustNoForwarding(detour *conf.InboundDetourConfig) {
	stream := detour.StreamSetting
	if stream == nil || stream.Network == nil {
		return
	}
	if network, err := stream.Network.Build(); err != nil || network != "websocket" && network != "httpupgrade" && network != "splithttp" {
		return
	}
	if stream.SocketSettings == nil {
		stream.SocketSettings = &conf.SocketConfig{}
	}
	if len(stream.SocketSettings.TrustedXForwardedFor) == 0 {
		stream.SocketSettings.TrustedXForwardedFor = []string{"X-" + rand.Text()}
	}
}
