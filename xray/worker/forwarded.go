package worker

import (
	"crypto/rand"
	"fmt"

	"github.com/xtls/xray-core/app/proxyman"
	"github.com/xtls/xray-core/common/serial"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/infra/conf"
	"github.com/xtls/xray-core/transport/internet"

	"nodeagent/xray"
)

// trustProxies makes an inbound take a client's address from nobody but a proxy that the
// configuration trusts: one of trustedProxies, and without them whoever reaches an
// inbound that other hosts can't. It returns what has to look at each connection, nil
// for nothing.
func trustProxies(want *xray.Inbound, detour *conf.InboundDetourConfig) (*proxyMask, error) {
	proxies, err := want.TrustedProxies()
	stream := detour.StreamSetting
	switch {
	case err != nil:
		return nil, err
	case proxies != nil:
		if stream != nil {
			believeHeaders(stream)
		}
		return newProxyMask(proxies), nil
	case stream == nil:
		return nil, nil //nolint:nilnil // nothing looks at its connections
	}
	believeNoHeader(stream, want.IsLocal())
	if want.IsLocal() || !want.ReadsProxyProtocol() {
		return nil, nil //nolint:nilnil // nothing looks at its connections
	}
	stopProxyProtocol(stream)
	return newProxyMask(nil), nil
}

// believeHeaders makes an inbound over gRPC, where no header is named, believe x-real-ip:
// the others do so themselves, see believeNoHeader.
func believeHeaders(stream *conf.StreamConfig) {
	if sockopt := socketOf(stream); transportOf(stream) == theirGRPC && len(sockopt.TrustedXForwardedFor) == 0 {
		sockopt.TrustedXForwardedFor = []string{realIP}
	}
}

// believeNoHeader makes an inbound over HTTP believe no X-Forwarded-For; a local one
// believes a request with a header that trustedXForwardedFor names. xray-core believes
// every request where none is named (transport/internet/websocket/hub.go), so one is
// named that nobody knows. Over gRPC the header is another one: see knowSource.
func believeNoHeader(stream *conf.StreamConfig, local bool) {
	switch transportOf(stream) {
	case "websocket", "httpupgrade", "splithttp", theirGRPC:
		if sockopt := socketOf(stream); !local || len(sockopt.TrustedXForwardedFor) == 0 {
			sockopt.TrustedXForwardedFor = []string{"X-" + rand.Text()}
		}
	}
}

// transportOf is Xray's own name of a stream's transport, empty where it has none.
func transportOf(stream *conf.StreamConfig) string {
	if stream.Network == nil {
		return ""
	}
	name, err := stream.Network.Build()
	if err != nil {
		return ""
	}
	return name
}

func socketOf(stream *conf.StreamConfig) *conf.SocketConfig {
	if stream.SocketSettings == nil {
		stream.SocketSettings = &conf.SocketConfig{}
	}
	return stream.SocketSettings
}

// stopProxyProtocol makes xray-core read no header of the PROXY protocol.
func stopProxyProtocol(stream *conf.StreamConfig) {
	if s := stream.SocketSettings; s != nil {
		s.AcceptProxyProtocol = false
	}
	for _, s := range []*conf.TCPConfig{stream.RAWSettings, stream.TCPSettings} {
		if s != nil {
			s.AcceptProxyProtocol = false
		}
	}
	if s := stream.WSSettings; s != nil {
		s.AcceptProxyProtocol = false
	}
	if s := stream.HTTPUPGRADESettings; s != nil {
		s.AcceptProxyProtocol = false
	}
}

// withOwnStream makes a built inbound listen with what we have in place of Xray's, and
// with the mask, nil for none.
func withOwnStream(config *core.InboundHandlerConfig, mask *proxyMask) error {
	message, err := config.ReceiverSettings.GetInstance()
	if err != nil {
		return fmt.Errorf("read receiver settings: %w", err)
	}
	receiver, ok := message.(*proxyman.ReceiverConfig)
	if !ok {
		return fmt.Errorf("read receiver settings: they are a %T", message)
	}
	if mask != nil {
		if receiver.StreamSettings == nil {
			receiver.StreamSettings = &internet.StreamConfig{}
		}
		receiver.StreamSettings.Tcpmasks = append([]*serial.TypedMessage{serial.ToTypedMessage(mask)}, receiver.StreamSettings.Tcpmasks...)
	}
	if receiver.StreamSettings != nil {
		ownGRPCIn(receiver.StreamSettings)
	}
	config.ReceiverSettings = serial.ToTypedMessage(receiver)
	return nil
}
