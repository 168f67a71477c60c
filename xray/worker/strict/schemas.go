package strict

import (
	"encoding/json"
	"reflect"
	"strings"

	"github.com/xtls/xray-core/infra/conf"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// What decodes itself in Xray has the same members here and no method.
type (
	nameServer    conf.NameServerConfig
	happyEyeballs conf.HappyEyeballsConfig
)

// tcpHeader has the members of both of its kinds: none and http.
type tcpHeader struct {
	Type json.RawMessage `json:"type"`
	conf.Authenticator
}

type socksUser struct {
	userMembers
	conf.SocksAccount
}

type httpUser struct {
	userMembers
	conf.HTTPAccount
}

type (
	tcpMask conf.Mask
	udpMask conf.Mask
)

// schemas tells what a member is decoded into in Xray's second step, or has in its place
// where Xray's type decodes itself.
var schemas = map[reflect.Type]map[string]reflect.Type{
	reflect.TypeFor[conf.VLessOutboundVnext]():  {"users": reflect.TypeFor[[]vlessClient]()},
	reflect.TypeFor[conf.VMessOutboundTarget](): {"users": reflect.TypeFor[[]vmessClient]()},
	reflect.TypeFor[conf.SocksRemoteConfig]():   {"users": reflect.TypeFor[[]socksUser]()},
	reflect.TypeFor[conf.HTTPRemoteConfig]():    {"users": reflect.TypeFor[[]httpUser]()},
	reflect.TypeFor[conf.SplitHTTPConfig]():     {"extra": reflect.TypeFor[conf.SplitHTTPConfig]()},
	reflect.TypeFor[conf.RouterConfig]():        {"rules": reflect.TypeFor[[]routingRule]()},
	reflect.TypeFor[conf.DNSConfig]():           {"servers": reflect.TypeFor[[]nameServer]()},
	reflect.TypeFor[conf.TCPConfig]():           {"header": reflect.TypeFor[tcpHeader]()},
	reflect.TypeFor[conf.SocketConfig]():        {"happyeyeballs": reflect.TypeFor[happyEyeballs]()},
	reflect.TypeFor[conf.FinalMask]():           {"tcp": reflect.TypeFor[[]tcpMask](), "udp": reflect.TypeFor[[]udpMask]()},
}

// settingsLoaders are Xray's tables of what the settings beside a type are.
var settingsLoaders = map[reflect.Type]*conf.JSONConfigLoader{
	reflect.TypeFor[conf.StrategyConfig](): strategyLoader,
	reflect.TypeFor[tcpMask]():             tcpMaskLoader,
	reflect.TypeFor[udpMask]():             udpMaskLoader,
}

// settingsOf is the type of an object's settings where its type decides it.
func settingsOf(t reflect.Type, object map[string]json.RawMessage) (reflect.Type, bool) {
	loader, ok := settingsLoaders[t]
	if !ok {
		return nil, false
	}
	name := kindOf(object)
	if name == "" && loader == strategyLoader {
		name = "random" // infra/conf/router.go:41
	}
	return decodedInto(loader, name)
}

// kindOf is the type that an object names, empty where it names none.
func kindOf(object map[string]json.RawMessage) (name string) {
	for member, raw := range object {
		if strings.EqualFold(member, "type") {
			_ = json.Unmarshal(raw, &name) // what is no text Xray says itself
		}
	}
	return name
}

// Operation finds a member that Xray has not in what the operation puts.
func Operation(op *state.Operation) error {
	switch {
	case op.Outbound != nil:
		return checkOutboundMembers(op.Outbound)
	case op.Inbound != nil:
		return checkInboundMembers(op.Inbound)
	}
	for _, part := range []sharedPart{
		{"routing", op.Routing, reflect.TypeFor[conf.RouterConfig]()},
		{"policy", op.Policy, reflect.TypeFor[conf.PolicyConfig]()},
		{"dns", op.DNS, reflect.TypeFor[conf.DNSConfig]()},
	} {
		if err := part.check(); err != nil {
			return err
		}
	}
	return nil
}

// Base finds a member that Xray does not have in the objects of base.
func Base(base state.Base) error {
	for _, part := range []sharedPart{
		{"observatory", base.Observatory, reflect.TypeFor[conf.ObservatoryConfig]()},
		{"burstObservatory", base.BurstObservatory, reflect.TypeFor[conf.BurstObservatoryConfig]()},
	} {
		if err := part.check(); err != nil {
			return err
		}
	}
	return nil
}

// sharedPart is what all inbounds and outbounds share.
type sharedPart struct {
	name string
	raw  json.RawMessage
	t    reflect.Type
}

func (p sharedPart) check() error {
	if p.raw == nil {
		return nil
	}
	if err := strict(p.name, p.raw, p.t); err != nil {
		return fault.InText("", "%v", err)
	}
	return nil
}
