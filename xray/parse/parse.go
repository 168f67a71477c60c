package parse

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"

	jsonv1 "github.com/go-json-experiment/json/v1"
)

// service is Core's XrayServiceConfig. Objects in Xray's format stay undecoded.
type service struct {
	Inbounds         []json.RawMessage `json:"inbounds"`
	Outbounds        []json.RawMessage `json:"outbounds"`
	Routing          json.RawMessage   `json:"routing"`
	DNS              json.RawMessage   `json:"dns"`
	Policy           json.RawMessage   `json:"policy"`
	Observatory      json.RawMessage   `json:"observatory"`
	BurstObservatory json.RawMessage   `json:"burstObservatory"`
}

// defaultOutbound is the outbound of a configuration without outbounds. It connects directly.
// Xray itself would drop all traffic.
const defaultOutbound = `{"protocol":"freedom","settings":{},"tag":"direct"}`

// Result is what could be read of a document.
type Result struct {
	// State has the parts that could be read. Routing, DNS, policy and the observatories are
	// nil where they were refused. A refused outbound is replaced by an outbound with the
	// same tag that blocks all traffic, so that no other outbound becomes the default and
	// rules to that tag lead nowhere else.
	State state.State
	// Routing is Xray's routing object in canonical form, with the users' names from Core.
	// WithUsers replaces them by the worker's names.
	Routing json.RawMessage
	// Refused has a fault for each part that could not be read.
	Refused []*fault.Fault
	// Unreadable has the inbounds among Refused, by tag, as far as they could be read. It
	// says which clients such an inbound would have. An inbound whose clients could not be
	// read is missing.
	Unreadable map[string]state.Inbound
}

// Parts reads Core's XrayServiceConfig part by part: where an inbound, a client or an outbound
// is wrong, only that part is refused. inClientMap reports whether the client map has the
// key; several goroutines call it. An error means that the document as a whole cannot be
// read. The clients and outbounds of the state have no slots yet.
func Parts(raw json.RawMessage, inClientMap func(key string) bool) (Result, error) {
	var cfg service
	if err := checkServiceMembers(raw); err != nil {
		return Result{}, fault.InText("", "read services.xray: %v", err)
	}
	if err := rawjson.DecodeStrict(raw, &cfg); err != nil {
		return Result{}, fault.InText("", "read services.xray: %v", err)
	}
	r := Result{State: state.State{Inbounds: make(map[string]state.Inbound, len(cfg.Inbounds))}, Unreadable: map[string]state.Inbound{}}
	for i, rawInbound := range cfg.Inbounds {
		r.addInbound(rawInbound, i, inClientMap)
	}
	if len(cfg.Outbounds) == 0 {
		cfg.Outbounds = []json.RawMessage{json.RawMessage(defaultOutbound)}
	}
	for i, rawOutbound := range cfg.Outbounds {
		r.addOutbound(rawOutbound, i)
	}
	for _, part := range []struct {
		kind     fault.Kind
		name     string
		from, to *json.RawMessage
	}{
		{fault.Routing, "routing", &cfg.Routing, &r.Routing},
		{fault.DNS, "dns", &cfg.DNS, &r.State.DNS},
		{fault.Policy, "policy", &cfg.Policy, &r.State.Policy},
		{fault.Routing, "observatory", &cfg.Observatory, &r.State.Base.Observatory},
		{fault.Routing, "burstObservatory", &cfg.BurstObservatory, &r.State.Base.BurstObservatory},
	} {
		var err error
		if *part.to, err = rawjson.CanonicalObject(*part.from); err != nil {
			r.refuse(fault.InText("", "read %s: %v", part.name, err).Of(part.kind))
		}
	}
	with, err := WithUsers(r.State, r.Routing)
	if err == nil {
		err = checkBalancers(with)
	}
	if err != nil {
		r.refuse(fault.In(fault.Routing, err))
		return r, nil
	}
	r.State = with
	return r, nil
}

// Service reads Core's XrayServiceConfig as a whole. It returns the first fault that Parts
// finds, or the fault that two inbounds listen on one port.
func Service(raw json.RawMessage, inClientMap func(key string) bool) (state.State, error) {
	r, err := Parts(raw, inClientMap)
	if err != nil {
		return state.State{}, err
	}
	if len(r.Refused) > 0 {
		return state.State{}, r.Refused[0]
	}
	return r.State, state.CheckPorts(state.State{}, r.State, false)
}

// refuse adds the faults in err to Refused.
func (r *Result) refuse(err error) { r.Refused = append(r.Refused, fault.All(err)...) }

func (r *Result) addInbound(raw json.RawMessage, index int, inClientMap func(string) bool) {
	in, clients, err := parseInbound(raw, index, inClientMap)
	_, twice := r.State.Inbounds[in.Tag]
	switch {
	case err == nil && twice:
		r.refuse(fault.InText(in.Tag, "two inbounds have the tag %q, and only the first one is used: give the other one another tag", in.Tag).Of(fault.Inbound))
	case err == nil:
		r.State.Inbounds[in.Tag] = in
		r.Refused = append(r.Refused, clients...)
	default:
		r.refuse(fault.In(fault.Inbound, err))
		if in.Clients != nil && !twice {
			r.Unreadable[in.Tag] = in
		}
	}
}

func (r *Result) addOutbound(raw json.RawMessage, index int) {
	out, err := parseOutbound(raw, index)
	if err == nil && r.State.OutboundIndex(out.Tag) >= 0 {
		r.refuse(fault.InText(out.Tag, "two outbounds have the tag %q, and only the first one is used: give the other one another tag", out.Tag).Of(fault.Outbound))
		return
	}
	if err != nil {
		r.refuse(fault.In(fault.Outbound, err))
		if out.Tag == "" {
			out.Tag = fmt.Sprintf("refused-%d", index)
		}
		out = Blocking(out.Tag)
	}
	r.State.Outbounds = append(r.State.Outbounds, out)
}

// Blocking returns an outbound that blocks all traffic. It takes the place of an outbound that
// was refused.
func Blocking(tag string) state.Outbound {
	config, err := rawjson.Canonical(map[string]string{"protocol": "blackhole", "tag": tag})
	if err != nil {
		return state.Outbound{Tag: tag} // two strings are always JSON
	}
	return state.Outbound{Tag: tag, Config: config}
}

// ourMembers are the members that Core adds to Xray's inbound object and parse removes.
type ourMembers struct {
	NodeProtocolID *int64 `json:"nodeProtocolId"`
	ProtocolName   string `json:"protocolName"`
}

// parseInbound reads one inbound. refused has the clients that could not be read. With an
// error, the inbound has its tag and its clients as far as they were read.
func parseInbound(raw json.RawMessage, index int, inClientMap func(string) bool) (_ state.Inbound, refused []*fault.Fault, _ error) {
	members, err := rawjson.Object(raw)
	if err != nil {
		return state.Inbound{}, nil, fault.InText("", "read inbounds[%d]: %v", index, err)
	}
	var head struct {
		Tag      string `json:"tag"`
		Protocol string `json:"protocol"`
	}
	var ours ourMembers
	if err := jsonv1.Unmarshal(raw, &head); err != nil {
		return state.Inbound{}, nil, fault.InText("", "read inbounds[%d]: %v", index, err)
	}
	if head.Tag == "" {
		return state.Inbound{}, nil, fault.InText("", "inbounds[%d] has no tag: give every inbound another one", index)
	}
	if err := jsonv1.Unmarshal(raw, &ours); err != nil {
		return state.Inbound{Tag: head.Tag}, nil, fault.InText(head.Tag, "read inbound %q: %v", head.Tag, err)
	}
	delete(members, "nodeProtocolId")
	delete(members, "protocolName")
	if string(members["listen"]) == `""` { // Xray would take it for a name without an address
		delete(members, "listen")
	}

	in := state.Inbound{Tag: head.Tag, Protocol: strings.ToLower(head.Protocol), VPNProtocol: ours.ProtocolName}
	if in.VPNProtocol == "" {
		in.VPNProtocol = in.Protocol
	}
	if err := renameMembers(in.Protocol, members); err != nil {
		return in, nil, fault.InText(in.Tag, "read inbound %q: %v", in.Tag, err)
	}
	if in.Clients, refused, err = takeClients(&in, members, inClientMap); err != nil {
		return in, nil, err
	}
	if ours.NodeProtocolID != nil {
		in.NodeProtocolID = *ours.NodeProtocolID
	} else {
		in.NodeProtocolID = numberAtEnd(in.Tag)
	}
	if in.NodeProtocolID == 0 && len(in.Clients) > 0 {
		return in, nil, fault.InText(in.Tag, "inbound %q has clients but no nodeProtocolId, and its tag does not end in a number, so their traffic could not be attributed: set nodeProtocolId", in.Tag)
	}
	if in.Config, err = rawjson.Canonical(members); err != nil {
		return in, nil, fault.InText(in.Tag, "read inbound %q: %v", in.Tag, err)
	}
	return in.Decoded(), refused, nil
}

func parseOutbound(raw json.RawMessage, index int) (state.Outbound, error) {
	members, err := rawjson.Object(raw)
	if err != nil {
		return state.Outbound{}, fault.InText("", "read outbounds[%d]: %v", index, err)
	}
	if err := renameMembers("", members); err != nil {
		return state.Outbound{}, fault.InText("", "read outbounds[%d]: %v", index, err)
	}
	config, err := rawjson.Canonical(members)
	if err != nil {
		return state.Outbound{}, fault.InText("", "read outbounds[%d]: %v", index, err)
	}
	var head struct {
		Tag string `json:"tag"`
	}
	if err := json.Unmarshal(config, &head); err != nil {
		return state.Outbound{}, fault.InText("", "read outbounds[%d]: %v", index, err)
	}
	if head.Tag == "" {
		return state.Outbound{}, fault.InText("", "outbounds[%d] has no tag: give every outbound another one", index)
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

// emailOf returns the client's name inside the worker. The name is a hash, because the key may
// be a password. It is the same at every start.
func emailOf(tag, key string, account []byte) string {
	sum := sha256.Sum256(append([]byte(tag+"\x00"+key+"\x00"), account...))
	return hex.EncodeToString(sum[:10])
}
