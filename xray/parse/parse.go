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

// Result is what could be read of a document.
type Result struct {
	// State has the parts that could be read. Routing, DNS, policy and the observatories are
	// nil where they were refused. In the place of a refused outbound stands one of the same
	// tag that blocks everything, so that no other outbound becomes the default and no rule
	// leads elsewhere.
	State state.State
	// Routing is Xray's routing object in canonical form, with the users as Core names them:
	// see WithUsers.
	Routing json.RawMessage
	// Refused has a fault for each part that could not be read.
	Refused []*fault.Fault
	// Unreadable has the inbounds among Refused, by tag, as far as they could be read. It
	// says which clients such an inbound would have. An inbound whose clients could not be
	// read is missing.
	Unreadable map[string]state.Inbound
}

// Parts reads Core's XrayServiceConfig part by part: an inbound, a client or an outbound
// that is wrong costs itself. inClientMap reports whether the client map has that key; it
// is called by several goroutines. An error means that the document as a whole is wrong.
// The state has no slots yet.
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

// Service reads Core's XrayServiceConfig as a whole. Its error is the first fault that Parts
// finds, or two inbounds on one port.
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

// refuse notes the faults of a part.
func (r *Result) refuse(err error) { r.Refused = append(r.Refused, fault.All(err)...) }

func (r *Result) addInbound(raw json.RawMessage, index int, inClientMap func(string) bool) {
	in, clients, err := parseInbound(raw, index, inClientMap)
	_, twice := r.State.Inbounds[in.Tag]
	switch {
	case err == nil && twice:
		r.refuse(fault.InText(in.Tag, "two inbounds have the tag %q; the first one counts", in.Tag).Of(fault.Inbound))
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
		r.refuse(fault.InText(out.Tag, "two outbounds have the tag %q; the first one counts", out.Tag).Of(fault.Outbound))
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

// Blocking returns an outbound that blocks everything. It stands in the place of an outbound
// that cannot be had.
func Blocking(tag string) state.Outbound {
	config, err := rawjson.Canonical(map[string]string{"protocol": "blackhole", "tag": tag})
	if err != nil {
		return state.Outbound{Tag: tag} // two strings are always JSON
	}
	return state.Outbound{Tag: tag, Config: config}
}

// ourMembers are what Core adds to Xray's inbound object.
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
		return state.Inbound{}, nil, fault.InText("", "inbounds[%d] has no tag; every inbound needs one of its own", index)
	}
	if err := jsonv1.Unmarshal(raw, &ours); err != nil {
		return state.Inbound{Tag: head.Tag}, nil, fault.InText(head.Tag, "read inbound %q: %v", head.Tag, err)
	}
	delete(members, "nodeProtocolId")
	delete(members, "protocolName")

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
		return in, nil, fault.InText(in.Tag, "inbound %q has clients but no nodeProtocolId, and its tag does not end in one: their traffic could not be attributed", in.Tag)
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
