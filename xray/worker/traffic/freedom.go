package traffic

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/xtls/xray-core/common"
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
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	ours "nodeagent/xray/worker/outbound/freedom"
	"nodeagent/xray/worker/reach"
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
			return newSplicingFreedom(inner, settings)
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
	if s := StreamFrom(ctx); s != nil && s.splices(link) {
		dialer = &splicingDialer{Dialer: dialer, stream: s}
	}
	link, dialer = ours.WholeDatagrams(ctx, link, dialer, choice)
	return f.Outbound.Process(ctx, link, dialer)
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
