package strict

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/xtls/xray-core/infra/conf"
	"github.com/xtls/xray-core/proxy/vless"

	"nodeagent/internal/fault"
	"nodeagent/internal/suggest"
	"nodeagent/xray/state"
)

// Xray passes over members that it does not know, so that a typing error
// changes what is served and nobody is told. strict compares an object with
// the Go types that Xray decodes it into. Where Xray decodes in two steps (a
// json.RawMessage), schemas says into what; where a type decodes itself, or
// schemas says nothing, everything passes.

// knownClients are the client objects of the protocols with a user manager.
var knownClients = map[string]any{
	"vless": vlessClient{}, "vmess": vmessClient{}, "trojan": conf.TrojanUserConfig{},
	"shadowsocks": conf.ShadowsocksUserConfig{}, "hysteria": conf.HysteriaUserConfig{}, "wireguard": conf.WireGuardPeerConfig{},
}

// userMembers is what Xray reads of every client beside the account.
type userMembers struct {
	Level json.RawMessage `json:"level"`
	Email json.RawMessage `json:"email"`
}

type vlessClient struct {
	userMembers
	vless.Account
}

type vmessClient struct {
	userMembers
	conf.VMessAccount
}

// routingRule has the members of Xray's rule, whose type is local to a function
// (infra/conf/router.go, parseFieldRule). "type" is read by nobody and stands
// in every older configuration.
type routingRule struct {
	conf.RouterRule
	Type       json.RawMessage         `json:"type"`
	Domain     json.RawMessage         `json:"domain"`
	Domains    json.RawMessage         `json:"domains"`
	IP         json.RawMessage         `json:"ip"`
	Port       json.RawMessage         `json:"port"`
	Network    json.RawMessage         `json:"network"`
	SourceIP   json.RawMessage         `json:"sourceIP"`
	Source     json.RawMessage         `json:"source"`
	SourcePort json.RawMessage         `json:"sourcePort"`
	User       json.RawMessage         `json:"user"`
	VlessRoute json.RawMessage         `json:"vlessRoute"`
	InboundTag json.RawMessage         `json:"inboundTag"`
	Protocols  json.RawMessage         `json:"protocol"`
	Attributes map[string]string       `json:"attrs"`
	LocalIP    json.RawMessage         `json:"localIP"`
	LocalPort  json.RawMessage         `json:"localPort"`
	Matcher    json.RawMessage         `json:"domainMatcher"` // written by panels, and read by nobody
	Process    json.RawMessage         `json:"process"`
	Webhook    *conf.WebhookRuleConfig `json:"webhook"`
}

func checkInboundMembers(want *state.Inbound) error {
	return checkDetour(want.Tag, fmt.Sprintf("inbound %q", want.Tag), want.Config, reflect.TypeFor[conf.InboundDetourConfig](), inboundLoader)
}

// Clients finds a member that Xray does not have in the accounts of users.
func Clients(tag, protocol string, users []state.Client) error {
	known, ok := knownClients[protocol]
	if !ok {
		return nil
	}
	for _, user := range users {
		if err := strict(fmt.Sprintf("inbound %q, client", tag), user.Account, reflect.TypeOf(known)); err != nil {
			return fault.InText(tag, "%v", err)
		}
	}
	return nil
}

func checkOutboundMembers(want *state.Outbound) error {
	return checkDetour(want.Tag, fmt.Sprintf("outbound %q", want.Tag), want.Config, reflect.TypeFor[conf.OutboundDetourConfig](), outboundLoader)
}

// checkDetour checks an inbound or outbound object and its settings.
func checkDetour(tag, place string, raw json.RawMessage, detour reflect.Type, known *conf.JSONConfigLoader) error {
	if err := strict(place, raw, detour); err != nil {
		return fault.InText(tag, "%v", err)
	}
	var head struct {
		Protocol string          `json:"protocol"`
		Settings json.RawMessage `json:"settings"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return fault.InText(tag, "read %s: %v", place, err)
	}
	settings, ok := decodedInto(known, head.Protocol)
	if !ok {
		return fault.InText(tag, "%s: protocol %q is unknown to Xray; it knows %s", place, head.Protocol, strings.Join(names(known), ", "))
	}
	if head.Settings == nil {
		return nil
	}
	if err := strict(place+": settings", head.Settings, settings); err != nil {
		return fault.InText(tag, "%v", err)
	}
	return nil
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// strict returns an error that names the first member of raw which t has not.
func strict(place string, raw json.RawMessage, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) {
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		return strictObject(place, raw, t)
	case reflect.Slice, reflect.Array:
		// What is of another kind stays empty here: Xray says so itself.
		var items []json.RawMessage
		_ = json.Unmarshal(raw, &items)
		for i, item := range items {
			if err := strict(fmt.Sprintf("%s[%d]", place, i), item, t.Elem()); err != nil {
				return err
			}
		}
	case reflect.Map:
		var items map[string]json.RawMessage
		_ = json.Unmarshal(raw, &items)
		for name, item := range items {
			if err := strict(place+"."+name, item, t.Elem()); err != nil {
				return err
			}
		}
	default:
	}
	return nil
}

func strictObject(place string, raw json.RawMessage, t reflect.Type) error {
	var object map[string]json.RawMessage
	_ = json.Unmarshal(raw, &object)
	known := members(t)
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if err := checkRemoved(place, t, object); err != nil {
			return err
		}
		// As encoding/json finds them, upper and lower case are one.
		lower := strings.ToLower(name)
		field, ok := known[lower]
		if !ok {
			more := besides(t)
			if more[lower] != "" {
				continue
			}
			near := suggest.DidYouMean(lower, slices.Concat(slices.Collect(maps.Keys(known)), slices.Collect(maps.Keys(more))),
				func(name string) string { return cmp.Or(known[name].name, more[name]) })
			return fmt.Errorf("%s: Xray has no member %q%s", place, name, near)
		}
		if second, ok := schemas[t][lower]; ok {
			field.t = second
		}
		if kind, ok := settingsOf(t, object); ok && lower == "settings" {
			field.t = kind
		}
		if err := strict(place+"."+name, object[name], field.t); err != nil {
			return err
		}
	}
	return nil
}

type member struct {
	name string
	t    reflect.Type
}

// knownMembers keeps what members found: a hundred thousand clients are of one
// type.
var knownMembers sync.Map // reflect.Type → map[string]member

// members are a struct's by their JSON names in lower case.
func members(t reflect.Type) map[string]member {
	if known, ok := knownMembers.Load(t); ok {
		return known.(map[string]member)
	}
	known := map[string]member{}
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Anonymous || !field.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = field.Name
		}
		known[strings.ToLower(name)] = member{name, field.Type}
	}
	knownMembers.Store(t, known)
	return known
}
