package traffic

import (
	"context"
	"fmt"
	gonet "net"
	"net/netip"

	"github.com/xtls/xray-core/app/proxyman"
	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/geodata"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/serial"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/proxy/dns"
	"github.com/xtls/xray-core/proxy/freedom"
	"github.com/xtls/xray-core/transport"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/stat"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	ours "nodeagent/xray/worker/outbound/freedom"
	"nodeagent/xray/worker/reach"
	"nodeagent/xray/worker/reads"
)

var (
	freedomType = serial.GetMessageType((*freedom.Config)(nil))
	dnsType     = serial.GetMessageType((*dns.Config)(nil))
)

// Direct wraps the outbounds that connect to what a stream asks for: freedom, and dns where it
// passes queries on. It leaves others as they are. RegisterDirect makes what Direct has wrapped.
func Direct(config *core.OutboundHandlerConfig) error {
	if kind := config.ProxySettings.Type; kind != freedomType && kind != dnsType {
		return nil
	}
	settings, err := proto.Marshal(config.ProxySettings)
	if err != nil {
		return fmt.Errorf("wrap the settings of outbound %q: %w", config.Tag, err)
	}
	config.ProxySettings = serial.ToTypedMessage(wrapperspb.Bytes(settings))
	return nil
}

// RegisterDirect teaches xray-core to make the outbounds that Direct has wrapped. The table is
// process-wide, so RegisterDirect is called once.
func RegisterDirect() error {
	return common.RegisterConfig((*wrapperspb.BytesValue)(nil), func(ctx context.Context, config any) (any, error) {
		var wrapped serial.TypedMessage
		if err := proto.Unmarshal(config.(*wrapperspb.BytesValue).Value, &wrapped); err != nil {
			return nil, err
		}
		settings, err := wrapped.GetInstance()
		if err != nil {
			return nil, err
		}
		object, err := common.CreateObject(ctx, settings)
		if err != nil {
			return nil, err
		}
		inner, ok := object.(proxy.Outbound)
		if !ok {
			return nil, fmt.Errorf("make outbound: %T is no outbound proxy", object)
		}
		switch settings := settings.(type) {
		case *freedom.Config:
			f, err := newSplicingFreedom(inner, settings)
			if err == nil {
				f.plain = isPlain(senderOf(ctx))
			}
			return f, err
		case *dns.Config:
			return &passingDNS{inner, settings.GetRewriteServer().GetAddress() != nil}, nil
		}
		return nil, fmt.Errorf("make outbound: %T is neither freedom nor dns", settings)
	})
}

// splicingFreedom is xray-core's freedom outbound over connections that splice, over sockets
// that receive datagrams of every size, and kept from the node itself.
type splicingFreedom struct {
	proxy.Outbound
	redirects bool // to an address of the operator's
	plain     bool // see isPlain
	rules     []openingRule
}

func newSplicingFreedom(inner proxy.Outbound, config *freedom.Config) (*splicingFreedom, error) {
	f := &splicingFreedom{Outbound: inner}
	if server := config.GetDestinationOverride().GetServer().GetAddress(); server != nil {
		// freedom takes no unspecified address (proxy/freedom/freedom.go, isValidAddress).
		address := server.AsAddress()
		f.redirects = address != net.AnyIP && address != net.AnyIPv6
	}
	for _, rule := range config.FinalRules {
		r := openingRule{allows: rule.GetAction() == freedom.RuleAction_Allow, networks: rule.Networks}
		if rule.PortList != nil {
			r.ports = net.PortListFromProto(rule.PortList)
		}
		if len(rule.Ip) > 0 {
			matcher, err := geodata.IPReg.BuildIPMatcher(rule.Ip)
			if err != nil {
				return nil, fmt.Errorf("read finalRules: %w", err)
			}
			r.addresses = matcher
		}
		f.rules = append(f.rules, r)
	}
	return f, nil
}

// openingRule is one of freedom's finalRules.
type openingRule struct {
	allows    bool
	networks  []net.Network
	ports     net.MemoryPortList
	addresses geodata.IPMatcher // nil: all
}

// opens tells whether the rules let clients reach the address, although it is the node itself: the
// first rule that holds allows it, and names addresses. A rule that allows everything does not
// mean the node itself.
func (f *splicingFreedom) opens(network net.Network, address netip.Addr, port net.Port) bool {
	for _, r := range f.rules {
		if r.holds(network, address, port) {
			return r.allows && r.addresses != nil
		}
	}
	return false
}

func (r *openingRule) holds(network net.Network, address netip.Addr, port net.Port) bool {
	return (len(r.networks) == 0 || net.HasNetwork(r.networks, network)) &&
		(len(r.ports) == 0 || r.ports.Contains(port)) &&
		(r.addresses == nil || r.addresses.Match(address.AsSlice()))
}

// Process serves one stream to its end.
func (f *splicingFreedom) Process(ctx context.Context, link *transport.Link, dialer internet.Dialer) error {
	var choice *reach.Choice
	if !f.redirects {
		var err error
		if ctx, choice, err = chosen(ctx, f.opens); err != nil {
			return err
		}
	}
	s := StreamFrom(ctx)
	splices := s != nil && s.splices(link)
	if f.plain {
		dialer = &plainDialer{dialer, !splices}
	}
	if splices {
		dialer = &splicingDialer{Dialer: dialer, stream: s}
	}
	link, dialer = ours.WholeDatagrams(ctx, link, dialer, choice)
	return f.Outbound.Process(ctx, link, dialer)
}

// senderOf returns how the outbound that is made in ctx connects; nil where that is not known.
func senderOf(ctx context.Context) *serial.TypedMessage {
	if handler := session.FullHandlerFromContext(ctx); handler != nil {
		return handler.SenderSettings()
	}
	return nil
}

// isPlain tells whether an outbound connects by bare sockets: it has no transport, mask, TLS, options of
// sockets or address of its own to send from, no mux, and goes through no other outbound.
func isPlain(sender *serial.TypedMessage) bool {
	if sender == nil {
		return false
	}
	object, err := sender.GetInstance()
	settings, is := object.(*proxyman.SenderConfig)
	if err != nil || !is {
		return false
	}
	settings.TargetStrategy = 0 // it says how names are resolved, which is before the connection
	return proto.Size(settings) == 0
}

// plainDialer is the dialer of a plain outbound. TCP connections are made at once: xray-core's own way
// makes the settings of a transport and a message for the log for each
// (transport/internet/dialer.go:49, transport/internet/tcp/dialer.go:21).
type plainDialer struct {
	internet.Dialer
	copies bool // the connections are never spliced
}

// Dial dials to.
func (d *plainDialer) Dial(ctx context.Context, to net.Destination) (stat.Connection, error) {
	if to.Network != net.Network_TCP {
		return d.Dialer.Dial(ctx, to)
	}
	conn, err := internet.DialSystem(ctx, to, nil)
	if err != nil {
		return nil, err
	}
	if outbounds := session.OutboundsFromContext(ctx); len(outbounds) > 0 { // as app/proxyman/outbound/handler.go:317
		outbounds[len(outbounds)-1].Conn = conn
	}
	if d.copies {
		return &copiedConn{conn, readerOf(conn), buf.NewWriter(conn)}, nil
	}
	return conn, nil
}

// readerOf returns a reader that holds no buffer while it waits, where the connection is a TCP socket.
func readerOf(conn stat.Connection) buf.Reader {
	if socket, is := conn.(*gonet.TCPConn); is {
		if reader, err := reads.Socket(socket); err == nil {
			return reader
		}
	}
	return buf.NewReader(conn)
}

// copiedConn is a connection that xray-core's freedom outbound copies at once. For one that may be
// spliced, it finds out first that it may not, and makes a message for the log
// (proxy.CopyRawConnIfExist, proxy/proxy.go:718).
type copiedConn struct {
	stat.Connection
	buf.Reader
	buf.Writer
}

// chosen returns the context for what the client of a stream has chosen, or an error where it
// may not reach that.
func chosen(ctx context.Context, opens func(net.Network, netip.Addr, net.Port) bool) (context.Context, *reach.Choice, error) {
	ctx, choice := reach.Choose(ctx, opens)
	if choice == nil {
		return ctx, nil, nil
	}
	outbounds := session.OutboundsFromContext(ctx)
	return ctx, choice, choice.CheckTarget(outbounds[len(outbounds)-1].Target)
}

// passingDNS is xray-core's dns outbound. It passes queries on to where the client wants, unless
// the configuration names a server.
type passingDNS struct {
	proxy.Outbound
	named bool
}

// Process serves one stream to its end. A server that the client may not reach gets no query; what
// xray-core answers by itself is answered.
func (d *passingDNS) Process(ctx context.Context, link *transport.Link, dialer internet.Dialer) error {
	if !d.named {
		ctx, _ = reach.Choose(ctx, nil)
	}
	return d.Outbound.Process(ctx, link, dialer)
}
