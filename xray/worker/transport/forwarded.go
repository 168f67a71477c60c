package transport

import (
	"fmt"

	"github.com/xtls/xray-core/app/proxyman"
	"github.com/xtls/xray-core/common/serial"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/infra/conf"
	"github.com/xtls/xray-core/proxy/dokodemo"
	"github.com/xtls/xray-core/proxy/shadowsocks"
	"github.com/xtls/xray-core/proxy/shadowsocks_2022"
	"github.com/xtls/xray-core/proxy/socks"
	"github.com/xtls/xray-core/transport/internet"

	"nodeagent/xray/state"
	"nodeagent/xray/trust"
	"nodeagent/xray/worker/datagrams"
	"nodeagent/xray/worker/life"
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

// believeHeaders lets no request name its client's address unless trusted is true.
// xray-core believes the X-Forwarded-For of a request that has one of the headers that
// trustedXForwardedFor names, and no request where it names none
// (common/protocol/http/headers.go:14, transport/internet/grpc/encoding/remoteaddr.go:39).
func believeHeaders(stream *conf.StreamConfig, trusted bool) {
	if socket := stream.SocketSettings; socket != nil && !trusted {
		socket.TrustedXForwardedFor = nil
	}
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

// Own makes a built inbound listen with what we have in place of Xray's, with the mask, nil
// for none, and with a watch over whether its peers are still there. bySource reports whether the
// sockets of its datagrams stay open in a worker that drains, for the sources that it serves.
func Own(config *core.InboundHandlerConfig, mask *proxymask.Mask) (bySource bool, err error) {
	message, err := config.ReceiverSettings.GetInstance()
	if err != nil {
		return false, fmt.Errorf("read receiver settings: %w", err)
	}
	receiver, ok := message.(*proxyman.ReceiverConfig)
	if !ok {
		return false, fmt.Errorf("read receiver settings: they are a %T", message)
	}
	if receiver.StreamSettings == nil {
		receiver.StreamSettings = &internet.StreamConfig{}
	}
	stream := receiver.StreamSettings
	// xray-core applies the last mask first (transport/internet/finalmask/finalmask.go:225).
	if mask != nil {
		stream.Tcpmasks = append(stream.Tcpmasks, serial.ToTypedMessage(mask))
	}
	stream.Tcpmasks = append(stream.Tcpmasks, serial.ToTypedMessage(life.New()))
	bySource = stream.GetEffectiveProtocol() == theirMKCP
	if receivesDatagrams[config.ProxySettings.GetType()] {
		bySource = keepWhole(receiver) || bySource
	}
	withOwnTransport(stream)
	config.ReceiverSettings = serial.ToTypedMessage(receiver)
	return bySource, nil
}

// receivesDatagrams are the settings of the inbounds that get datagrams from xray-core's own
// UDP sockets.
var receivesDatagrams = map[string]bool{
	serial.GetMessageType((*dokodemo.Config)(nil)):                        true,
	serial.GetMessageType((*socks.ServerConfig)(nil)):                     true,
	serial.GetMessageType((*shadowsocks.ServerConfig)(nil)):               true,
	serial.GetMessageType((*shadowsocks_2022.ServerConfig)(nil)):          true,
	serial.GetMessageType((*shadowsocks_2022.MultiUserServerConfig)(nil)): true,
	serial.GetMessageType((*shadowsocks_2022.RelayServerConfig)(nil)):     true,
}

// keepWhole makes an inbound receive its datagrams whole, and reports whether it does. Where it asks for the address to which
// a redirected datagram was sent, xray-core reads that from a bare socket alone
// (transport/internet/udp/hub.go:112), and datagrams of more than 8,192 bytes are cut. So they
// are behind masks, whose buffers have half that size.
func keepWhole(receiver *proxyman.ReceiverConfig) bool {
	socket := receiver.StreamSettings.GetSocketSettings()
	if receiver.ReceiveOriginalDestination || socket.GetReceiveOriginalDestAddress() || len(receiver.StreamSettings.GetUdpmasks()) > 0 {
		return false
	}
	receiver.StreamSettings.Udpmasks = append(receiver.StreamSettings.Udpmasks, serial.ToTypedMessage(datagrams.NewMask()))
	return true
}
