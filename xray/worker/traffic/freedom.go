package traffic

import (
	"context"
	"fmt"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/serial"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/proxy/freedom"
	"github.com/xtls/xray-core/transport"
	"github.com/xtls/xray-core/transport/internet"
	"google.golang.org/protobuf/types/known/wrapperspb"

	ours "nodeagent/xray/worker/outbound/freedom"
)

var freedomType = serial.GetMessageType((*freedom.Config)(nil))

// Splice makes a freedom outbound splice and count while it does. It leaves others as they are.
func Splice(config *core.OutboundHandlerConfig) {
	if config.ProxySettings.Type == freedomType {
		config.ProxySettings = serial.ToTypedMessage(wrapperspb.Bytes(config.ProxySettings.Value))
	}
}

// RegisterFreedom teaches xray-core to make the outbounds that Splice has changed. The table is
// process-wide, so RegisterFreedom is called once.
func RegisterFreedom() error {
	return common.RegisterConfig((*wrapperspb.BytesValue)(nil), func(ctx context.Context, config any) (any, error) {
		settings, err := (&serial.TypedMessage{Type: freedomType, Value: config.(*wrapperspb.BytesValue).Value}).GetInstance()
		if err != nil {
			return nil, err
		}
		object, err := common.CreateObject(ctx, settings)
		if err != nil {
			return nil, err
		}
		inner, ok := object.(proxy.Outbound)
		if !ok {
			return nil, fmt.Errorf("make freedom outbound: %T is no outbound proxy", object)
		}
		return &splicingFreedom{inner}, nil
	})
}

// splicingFreedom is xray-core's freedom outbound over connections that splice, and over sockets
// that receive datagrams of every size.
type splicingFreedom struct{ proxy.Outbound }

// Process serves one stream to its end.
func (f *splicingFreedom) Process(ctx context.Context, link *transport.Link, dialer internet.Dialer) error {
	if s := StreamFrom(ctx); s != nil && s.splices(link) {
		dialer = &splicingDialer{Dialer: dialer, stream: s}
	}
	link, dialer = ours.WholeDatagrams(ctx, link, dialer)
	return f.Outbound.Process(ctx, link, dialer)
}
