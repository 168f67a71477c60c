package xray

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

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
func Parse(raw json.RawMessage, inClientMap func(key string) bool) (State, error) {
	var cfg service
	if err := checkServiceMembers(raw); err != nil {
		return State{}, invalid("", "read services.xray: %v", err)
	}
	if err := decodeStrict(raw, &cfg); err != nil {
		return State{}, invalid("", "read services.xray: %v", err)
	}
	state := State{Inbounds: make(map[string]Inbound, len(cfg.Inbounds))}
	for i, rawInbound := range cfg.Inbounds {
		in, err := parseInbound(rawInbound, i, inClientMap)
		if err != nil {
			return State{}, err
		}
		if _, twice := state.Inbounds[in.Tag]; twice {
			return State{}, invalid(in.Tag, "two inbounds have the tag %q", in.Tag)
		}
		state.Inbounds[in.Tag] = in
	}
	if len(cfg.Outbounds) == 0 {
		cfg.Outbounds = []json.RawMessage{json.RawMessage(defaultOutbound)}
	}
	for i, rawOutbound := range cfg.Outbounds {
		out, err := parseOutbound(rawOutbound, i)
		if err != nil {
			return State{}, err
		}
		if state.outboundIndex(out.Tag) >= 0 {
			return State{}, invalid(out.Tag, "two outbounds have the tag %q", out.Tag)
		}
		state.Outbounds = append(state.Outbounds, out)
	}
	for name, part := range map[string]struct{ from, to *json.RawMessage }{
		"routing":          {&cfg.Routing, &state.Routing},
		"dns":              {&cfg.DNS, &state.DNS},
		"policy":           {&cfg.Policy, &state.Policy},
		"observatory":      {&cfg.Observatory, &state.Base.Observatory},
		"burstObservatory": {&cfg.BurstObservatory, &state.Base.BurstObservatory},
	} {
		var err error
		if *part.to, err = canonicalObject(*part.from); err != nil {
			return State{}, invalid("", "read %s: %v", name, err)
		}
	}
	var err error
	if state.Routing, err = translateUsers(state); err != nil {
		return State{}, err
	}
	return state, checkTogether(state)
}

// ourMembers are what Core adds to Xray's inbound object.
type ourMembers struct {
	NodeProtocolID *int64 `json:"nodeProtocolId"`
	ProtocolName   string `json:"protocolName"`
}

func parseInbound(raw json.RawMessage, index int, inClientMap func(string) bool) (Inbound, error) {
	members, err := object(raw)
	if err != nil {
		return Inbound{}, invalid("", "read inbounds[%d]: %v", index, err)
	}
	var head struct {
		Tag      string `json:"tag"`
		Protocol string `json:"protocol"`
	}
	var ours ourMembers
	if err := jsonv1.Unmarshal(raw, &head); err != nil {
		return Inbound{}, invalid("", "read inbounds[%d]: %v", index, err)
	}
	if head.Tag == "" {
		return Inbound{}, invalid("", "inbounds[%d] has no tag; every inbound needs one of its own", index)
	}
	if err := jsonv1.Unmarshal(raw, &ours); err != nil {
		return Inbound{}, invalid(head.Tag, "read inbound %q: %v", head.Tag, err)
	}
	delete(members, "nodeProtocolId")
	delete(members, "protocolName")

	in := Inbound{Tag: head.Tag, Protocol: strings.ToLower(head.Protocol), VPNProtocol: ours.ProtocolName}
	if in.VPNProtocol == "" {
		in.VPNProtocol = in.Protocol
	}
	if in.Clients, err = takeClients(&in, members, inClientMap); err != nil {
		return Inbound{}, err
	}
	if ours.NodeProtocolID != nil {
		in.NodeProtocolID = *ours.NodeProtocolID
	} else {
		in.NodeProtocolID = numberAtEnd(in.Tag)
	}
	if in.NodeProtocolID == 0 && len(in.Clients) > 0 {
		return Inbound{}, invalid(in.Tag, "inbound %q has clients but no nodeProtocolId, and its tag does not end in one: their traffic could not be attributed", in.Tag)
	}
	if in.Config, err = canonical(members); err != nil {
		return Inbound{}, invalid(in.Tag, "read inbound %q: %v", in.Tag, err)
	}
	return in, nil
}

func parseOutbound(raw json.RawMessage, index int) (Outbound, error) {
	config, err := canonicalObject(raw)
	if err != nil {
		return Outbound{}, invalid("", "read outbounds[%d]: %v", index, err)
	}
	var head struct {
		Tag string `json:"tag"`
	}
	if config == nil {
		return Outbound{}, invalid("", "read outbounds[%d]: it is null, want an object", index)
	}
	if err := json.Unmarshal(config, &head); err != nil {
		return Outbound{}, invalid("", "read outbounds[%d]: %v", index, err)
	}
	if head.Tag == "" {
		return Outbound{}, invalid("", "outbounds[%d] has no tag; every outbound needs one of its own", index)
	}
	return Outbound{Tag: head.Tag, Config: config}, nil
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
