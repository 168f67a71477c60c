package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/xtls/xray-core/common"
	"github.com/xtls/xray-core/common/serial"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/features/inbound"
	"github.com/xtls/xray-core/features/outbound"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/infra/conf"
	_ "github.com/xtls/xray-core/main/distro/all" // every protocol and transport
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/features"
	"nodeagent/xray/worker/guard"
	"nodeagent/xray/worker/reach"
	"nodeagent/xray/worker/traffic"
	"nodeagent/xray/worker/transport"
)

// The names under which our own features are made; see registerFeatures.
const (
	featureDispatcher = "dispatcher"
	featureRouter     = "router"
	featureOutbounds  = "outbounds"
	featureInbounds   = "inbounds"
	featurePolicy     = "policy"
	featureDNS        = "dns"
)

type instanceKey struct{}

// instance is xray-core with our features in it.
type instance struct {
	core      *core.Instance
	clients   *traffic.Registry
	router    *features.Router
	outbounds *features.Outbounds
	inbounds  *inboundManager
	policy    *features.Policy
	dns       *features.DNS
	// resetKey is ipc.Boot.ResetKey.
	resetKey []byte
	reach    *reach.Policy
}

// registerFeatures teaches xray-core's container to make our features. The
// container is process-wide, so it is called once, by init.
func registerFeatures() error {
	return common.RegisterConfig((*wrapperspb.StringValue)(nil), func(ctx context.Context, config any) (any, error) {
		in, ok := ctx.Value(instanceKey{}).(*instance)
		if !ok {
			return nil, errors.New("make feature: no instance in the context")
		}
		switch name := config.(*wrapperspb.StringValue).GetValue(); name {
		case featureDispatcher:
			return traffic.NewDispatcher(ctx, in.clients)
		case featureRouter:
			router, err := features.NewRouter(ctx)
			in.router = router
			return router, err
		case featureOutbounds:
			in.outbounds = features.NewOutbounds()
			return in.outbounds, nil
		case featurePolicy:
			in.policy = features.NewPolicy()
			return in.policy, nil
		case featureDNS:
			in.dns = features.NewDNS(ctx)
			return in.dns, nil
		case featureInbounds:
			in.inbounds = newInboundManager()
			return in.inbounds, nil
		default:
			return nil, fmt.Errorf("make feature: unknown name %q", name)
		}
	})
}

func init() {
	common.Must(registerFeatures())
	common.Must(guard.Register(makeInbound))
	common.Must(traffic.RegisterDirect())
	common.Must(transport.Register())
}

// newInstance makes xray-core with no inbound and no outbound; the caller starts
// it. Cancelling ctx ends the live streams; Close ends the listeners.
func newInstance(ctx context.Context, base state.Base, clients *traffic.Registry) (*instance, error) {
	apps, err := baseApps(base)
	if err != nil {
		return nil, err
	}
	in := &instance{clients: clients, reach: reach.New(nil)}
	own := func(name string) *serial.TypedMessage { return serial.ToTypedMessage(wrapperspb.String(name)) }
	config := &core.Config{App: append([]*serial.TypedMessage{
		own(featurePolicy), own(featureDNS), own(featureDispatcher), own(featureInbounds), own(featureOutbounds), own(featureRouter),
	}, apps...)}
	if in.core, err = core.NewWithContext(context.WithValue(ctx, instanceKey{}, in), config); err != nil {
		return nil, fmt.Errorf("make xray instance: %w", err)
	}
	return in, nil
}

// baseApps builds the features that can't be replaced while xray-core runs.
func baseApps(base state.Base) ([]*serial.TypedMessage, error) {
	var apps []*serial.TypedMessage
	for _, part := range []struct {
		name  string
		raw   json.RawMessage
		build func(json.RawMessage) (proto.Message, error)
	}{
		{"observatory", base.Observatory, features.BuildAny[conf.ObservatoryConfig]},
		{"burstObservatory", base.BurstObservatory, features.BuildAny[conf.BurstObservatoryConfig]},
	} {
		if part.raw == nil {
			continue
		}
		message, err := part.build(part.raw)
		if err != nil {
			return nil, fault.Caused(err, "", "build %s: %v", part.name, err)
		}
		apps = append(apps, serial.ToTypedMessage(message))
	}
	return apps, nil
}

var (
	_ outbound.Manager         = (*features.Outbounds)(nil)
	_ outbound.HandlerSelector = (*features.Outbounds)(nil)
	_ inbound.Manager          = (*inboundManager)(nil)
	_ routing.Router           = (*features.Router)(nil)
	_ routing.Dispatcher       = (*traffic.Dispatcher)(nil)
)
