package transport

import (
	"crypto/rand"
	"fmt"

	"github.com/xtls/xray-core/app/proxyman"
	"github.com/xtls/xray-core/common/serial"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/infra/conf"
	"github.com/xtls/xray-core/transport/internet"

	"nodeagent/xray/state"
	"nodeagent/xray/trust"
	"nodeagent/xray/worker/transport/proxymask"
)

// TrustProxies makes an inbound take a client's address from whom it trusts alone. It
// returns what has to look at each connection, nil for nothing.
func TrustProxies(want *state.Inbound, detour *conf.InboundDetourConfig) (*proxymask.Mask, error) {
	trust, err := trust.Of(*want)
	if err != nil {
		return nil, err
	}
	if stream := detour.StreamSetting; stream != nil {
		believeHeaders(stream, trust.Headers)
		if !trust.Believed {
			stopProxyProtocol(stream)
		}
	}
	if trust.Proxies == nil && !trust.ProxyProtocol {
		return nil, nil //nolint:nilnil // nothing looks at its connections
	}
	return proxymask.New(trust.Proxies, trust.ProxyProtocol && !trust.Believed), nil
}

// believeHeaders makes an inbound over HTTP believe the X-Forwarded-For of requests with a
// header that trustedXForwardedFor names, or of none. xray-core believes every request
// where none is named (transport/internet/websocket/hub.go), so one is named that nobody
// knows. Over gRPC the header is another one: see knowSource.
func believeHeaders(stream *conf.StreamConfig, trusted bool) {
	switch transportOf(stream) {
	case "websocket", "httpupgrade", theirXHTTP, theirGRPC:
		if sockopt := socketOf(stream); !trusted || len(sockopt.TrustedXForwardedFor) == 0 {
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

// Own makes a built inbound listen with what we have in place of Xray's, and
// with the mask, nil for none.
func Own(config *core.InboundHandlerConfig, mask *proxymask.Mask) error {
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
		withOwnTransport(receiver.StreamSettings)
	}
	config.ReceiverSettings = serial.ToTypedMessage(receiver)
	return nil
}
