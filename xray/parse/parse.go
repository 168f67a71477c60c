package parse

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"

	jsonv1 "github.com/go-json-experiment/json/v1"
)

// service is Core's XrayServiceConfig. Members that are Xray's own stay raw.
type service struct {
	Inbounds         []json.RawMessage `json:"inbounds"`
	Outbounds        []json.RawMessage `json:"outbounds"`
	Routing          json.RawMessage   `json:"routing"`
	DNS              json.RawMessage   `json:"dns"`
	Policy           json.RawMessage   `json:"policy"`
	Observatory      json.RawMessage   `json:"observatory"`
	BurstObservatory json.RawMessage   `json:"burstObservatory"`
}

// defaultOutbound is what a configuration without outbounds means: straight
// out. Xray itself would drop everything.
const defaultOutbound = `{"protocol":"freedom","settings":{},"tag":"direct"}`

// Parse reads Core's XrayServiceConfig into a State without slots. inClientMap
// tells whether a client map has that key. Everything that can be found wrong
// by looking at the text alone is, as an *InvalidError that names the place.
func Service(raw json.RawMessage, inClientMap func(key string) bool) (state.State, error) {
	var cfg service
	if err := checkServiceMembers(raw); err != nil {
		return state.State{}, fault.InText("", "read services.xray: %v", err)
	}
	if err := rawjson.DecodeStrict(raw, &cfg); err != nil {
		return state.State{}, fault.InText("", "read services.xray: %v", err)
	}
	desired := state.State{Inbounds: make(map[string]state.Inbound, len(cfg.Inbounds))}
	for i, rawInbound := range cfg.Inbounds {
		in, err := parseInbound(rawInbound, i, inClientMap)
		if err != nil {
			return state.State{}, err
		}
		if _, twice := desired.Inbounds[in.Tag]; twice {
			return state.State{}, fault.InText(in.Tag, "two inbounds have the tag %q", in.Tag)
		}
		desired.Inbounds[in.Tag] = in
	}
	if len(cfg.Outbounds) == 0 {
		cfg.Outbounds = []json.RawMessage{json.RawMessage(defaultOutbound)}
	}
	for i, rawOutbound := range cfg.Outbounds {
		out, err := parseOutbound(rawOutbound, i)
		if err != nil {
			return state.State{}, err
		}
		if desired.OutboundIndex(out.Tag) >= 0 {
			return state.State{}, fault.InText(out.Tag, "two outbounds have the tag %q", out.Tag)
		}
		desired.Outbounds = append(desired.Outbounds, out)
	}
	for name, part := range map[string]struct{ from, to *json.RawMessage }{
		"routing":          {&cfg.Routing, &desired.Routing},
		"dns":              {&cfg.DNS, &desired.DNS},
		"policy":           {&cfg.Policy, &desired.Policy},
		"observatory":      {&cfg.Observatory, &desired.Base.Observatory},
		"burstObservatory": {&cfg.BurstObservatory, &desired.Base.BurstObservatory},
	} {
		var err error
		if *part.to, err = rawjson.CanonicalObject(*part.from); err != nil {
			return state.State{}, fault.InText("", "read %s: %v", name, err)
		}
	}
	routing, err := translateUsers(desired)
	if err != nil {
		return state.State{}, err
	}
	if desired, err = desired.WithRouting(routing); err != nil {
		return state.State{}, fault.InText("", "read routing: %v", err)
	}
	return desired, checkTogether(desired)
}

// ourMembers are what Core adds to Xray's inbound object.
type ourMembers struct {
	NodeProtocolID *int64 `json:"nodeProtocolId"`
	ProtocolName   string `json:"protocolName"`
}

func parseInbound(raw json.RawMessage, index int, inClientMap func(string) bool) (state.Inbound, error) {
	members, err := rawjson.Object(raw)
	if err != nil {
		return state.Inbound{}, fault.InText("", "read inbounds[%d]: %v", index, err)
	}
	var head struct {
		Tag      string `json:"tag"`
		Protocol string `json:"protocol"`
	}
	var ours ourMembers
	if err := jsonv1.Unmarshal(raw, &head); err != nil {
		return state.Inbound{}, fault.InText("", "read inbounds[%d]: %v", index, err)
	}
	if head.Tag == "" {
		return state.Inbound{}, fault.InText("", "inbounds[%d] has no tag; every inbound needs one of its own", index)
	}
	if err := jsonv1.Unmarshal(raw, &ours); err != nil {
		return state.Inbound{}, fault.InText(head.Tag, "read inbound %q: %v", head.Tag, err)
	}
	delete(members, "nodeProtocolId")
	delete(members, "protocolName")

	in := state.Inbound{Tag: head.Tag, Protocol: strings.ToLower(head.Protocol), VPNProtocol: ours.ProtocolName}
	if in.VPNProtocol == "" {
		in.VPNProtocol = in.Protocol
	}
	if in.Clients, err = takeClients(&in, members, inClientMap); err != nil {
		return state.Inbound{}, err
	}
	if ours.NodeProtocolID != nil {
		in.NodeProtocolID = *ours.NodeProtocolID
	} else {
		in.NodeProtocolID = numberAtEnd(in.Tag)
	}
	if in.NodeProtocolID == 0 && len(in.Clients) > 0 {
		return state.Inbound{}, fault.InText(in.Tag, "inbound %q has clients but no nodeProtocolId, and its tag does not end in one: their traffic could not be attributed", in.Tag)
	}
	if in.Config, err = rawjson.Canonical(members); err != nil {
		return state.Inbound{}, fault.InText(in.Tag, "read inbound %q: %v", in.Tag, err)
	}
	return in.Decoded(), nil
}

func parseOutbound(raw json.RawMessage, index int) (state.Outbound, error) {
	config, err := rawjson.CanonicalObject(raw)
	if err != nil {
		return state.Outbound{}, fault.InText("", "read outbounds[%d]: %v", index, err)
	}
	var head struct {
		Tag string `json:"tag"`
	}
	if config == nil {
		return state.Outbound{}, fault.InText("", "read outbounds[%d]: it is null, want an object", index)
	}
	if err := json.Unmarshal(config, &head); err != nil {
		return state.Outbound{}, fault.InText("", "read outbounds[%d]: %v", index, err)
	}
	if head.Tag == "" {
		return state.Outbound{}, fault.InText("", "outbounds[%d] has no tag; every outbound needs one of its own", index)
	}
	return state.Outbound{Tag: head.Tag, Config: config}, nil
}

var trailingNumber = regexp.MustCompile(`[0-9]+$`)

func numberAtEnd(tag string) int64 {
	n, err := strconv.ParseInt(trailingNumber.FindString(tag), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// emailOf makes the client's name inside the worker. It tells nothing about
// the key, which may be a password, and is the same at every start.
func emailOf(tag, key string, account []byte) string {
	sum := sha256.Sum256(append([]byte(tag+"\x00"+key+"\x00"), account...))
	return hex.EncodeToString(sum[:10])
}
