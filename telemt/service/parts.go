package service

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/internal/grant"
)

// MaxClients is the highest number of users that telemt names in its metrics. It leaves the
// others out, and their traffic would not be counted.
const MaxClients = 4096

// Result is what could be read of a MtProtoServiceConfig.
type Result struct {
	// Service has the parts that could be read. It has no upstreams where one of them was
	// refused, and nothing where Whole is true.
	Service Service
	// Refused has a fault for each part that could not be read: an inbound (fault.MTProto), a
	// client, or the upstreams.
	Refused []*fault.Fault
	// Whole is true where no inbound can be served as it was asked for: a part that all share,
	// such as advanced, was refused.
	Whole bool
	// Unreadable has the inbounds that were refused, by tag, with the clients that could be
	// read: it says who is let in. An inbound whose list of clients could not be read is
	// missing.
	Unreadable map[string]Inbound
}

// serviceText is a MtProtoServiceConfig whose parts are not decoded yet.
type serviceText struct {
	Inbounds  []json.RawMessage `json:"inbounds"`
	Upstreams []json.RawMessage `json:"upstreams"`
	Advanced  map[string]any    `json:"advanced"`
}

// inboundText is an inbound whose clients are not decoded yet.
type inboundText struct {
	Inbound
	Clients []json.RawMessage `json:"clients"`
}

// Parts reads Core's MtProtoServiceConfig part by part: where an inbound or a client is wrong,
// only that part is refused. Members that it does not know are wrong. All faults are in the
// text: another try of the same document does not help.
func Parts(raw json.RawMessage) Result {
	r := Result{Unreadable: map[string]Inbound{}}
	var text serviceText
	if err := strictly(raw, &text); err != nil {
		r.Refused, r.Whole = append(r.Refused, fault.InText("", "read services.mtproto: %v", err).Of(fault.MTProto)), true
		text = serviceText{}
		_ = json.Unmarshal(raw, &text) // the inbounds say who is let in
	} else if err := checkAdvanced(text.Advanced); err != nil {
		r.Refused, r.Whole = append(r.Refused, fault.InText("", "%v", err).Of(fault.MTProto)), true
	}
	r.Service.Advanced, _ = convertNumbers(text.Advanced).(map[string]any)
	for i, raw := range text.Upstreams {
		u, err := parseUpstream(raw)
		if err != nil {
			r.Refused = append(r.Refused, fault.InText("", "mtproto upstreams[%d]: %v", i, err).Of(fault.Upstream))
			r.Service.Upstreams = nil
			break
		}
		r.Service.Upstreams = append(r.Service.Upstreams, u)
	}
	tags := map[string]bool{}
	for i, raw := range text.Inbounds {
		r.addInbound(raw, i, tags)
	}
	if r.Whole {
		for _, in := range r.Service.Inbounds {
			r.Unreadable[in.Tag] = in
		}
		r.Service = Service{}
	}
	return r
}

// Parse reads a MtProtoServiceConfig as a whole. The error is the first fault that Parts finds.
func Parse(raw json.RawMessage) (Service, error) {
	r := Parts(raw)
	if len(r.Refused) > 0 {
		return Service{}, r.Refused[0]
	}
	return r.Service, nil
}

// addInbound reads one inbound. tags has the tags of the inbounds before it.
func (r *Result) addInbound(raw json.RawMessage, index int, tags map[string]bool) {
	var text inboundText
	err := strictly(raw, &text)
	if err != nil {
		text = inboundText{}
		_ = json.Unmarshal(raw, &text) // as far as it goes
	}
	in, place := text.Inbound, fmt.Sprintf("mtproto inbound %q", text.Tag)
	switch {
	case in.Tag == "" && err != nil:
		r.Refused = append(r.Refused, fault.InText("", "read mtproto inbounds[%d]: %v", index, err).Of(fault.MTProto))
		return
	case in.Tag == "":
		r.Refused = append(r.Refused, fault.InText("", "mtproto inbounds[%d] has no tag", index).Of(fault.MTProto))
		return
	case tags[in.Tag]:
		r.Refused = append(r.Refused, fault.InText(in.Tag, "two mtproto inbounds have the tag %q, and only the first one is used: give the other one another tag", in.Tag).Of(fault.MTProto))
		return
	}
	tags[in.Tag] = true
	var clients []*fault.Fault
	in.Clients, clients = parseClients(in.Tag, text.Clients)
	if err == nil {
		err = in.validate()
	}
	for _, other := range r.Service.Inbounds {
		if err == nil && in.Overlaps(other) {
			err = fmt.Errorf("mtproto inbounds %q and %q both listen on port %d", other.Tag, in.Tag, in.Port)
		}
	}
	if err != nil {
		r.Refused = append(r.Refused, fault.InText(in.Tag, "%s: %v", place, err).Of(fault.MTProto))
		if text.Clients != nil {
			r.Unreadable[in.Tag] = in
		}
		return
	}
	r.Service.Inbounds = append(r.Service.Inbounds, in)
	r.Refused = append(r.Refused, clients...)
}

// parseClients reads the clients of the inbound tag. Each that is wrong is refused by itself.
func parseClients(tag string, raw []json.RawMessage) (clients []Client, refused []*fault.Fault) {
	ids, secrets := map[string]int{}, map[string]int{}
	for i, raw := range raw {
		var c Client
		err := strictly(raw, &c)
		if err == nil {
			err = c.validate()
		}
		if err == nil {
			c.Grant, err = grant.Read(c.GrantText)
			c.GrantText = nil
		}
		secret := strings.ToLower(c.Secret)
		if other, twice := ids[c.ID]; err == nil && twice {
			err = fmt.Errorf("clients[%d] has the same id", other)
		} else if other, twice := secrets[secret]; err == nil && twice {
			err = fmt.Errorf("clients[%d] has the same secret, so their traffic could not be told apart: give one of them another secret", other)
		}
		if err == nil && len(clients) == MaxClients {
			err = fmt.Errorf("telemt counts the traffic of at most %d clients of an inbound: give the others another inbound", MaxClients)
		}
		if err != nil {
			f := fault.InText(tag, "mtproto inbound %q: clients[%d]: %v", tag, i, err).Of(fault.Client)
			f.Client = c.ID
			refused = append(refused, f)
			continue
		}
		ids[c.ID], secrets[secret] = i, i
		clients = append(clients, c)
	}
	return sortedByID(clients), refused
}

func parseUpstream(raw json.RawMessage) (u Upstream, err error) {
	if err := strictly(raw, &u); err != nil {
		return u, err
	}
	return u, u.validate()
}

// strictly decodes raw into value. A member that value does not have is an error. Numbers in
// free JSON keep their text: telemt tells 30 from 30.0.
func strictly(raw json.RawMessage, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	return decoder.Decode(value)
}

func (in Inbound) validate() error {
	switch {
	case in.NodeProtocolID <= 0:
		return fmt.Errorf("nodeProtocolId is missing or not positive; without it the inbound's traffic belongs to no protocol")
	case in.Port == 0:
		return fmt.Errorf("port is missing")
	case in.Modes == (Modes{}):
		return fmt.Errorf("modes has none of classic, secure and tls on, so that no client could connect")
	case in.AdTag != "" && !isHex(in.AdTag, 16):
		return fmt.Errorf("adTag is not 32 hex digits")
	}
	if _, err := netip.ParseAddr(in.Listen); in.Listen != "" && err != nil {
		return fmt.Errorf("listen is %q, which is not an IP address", in.Listen)
	}
	return nil
}

func (c Client) validate() error {
	switch {
	case c.ID == "":
		return fmt.Errorf("it has no id")
	case !isHex(c.Secret, 16):
		return fmt.Errorf("its secret is not 32 hex digits")
	case c.QuotaBytes < 0 || c.LimitIPs < 0 || c.LimitConnections < 0 || c.RateUpBitsPerSecond < 0 || c.RateDownBitsPerSecond < 0:
		return fmt.Errorf("a limit is negative; omit it for no limit")
	}
	return nil
}

func (u Upstream) validate() error {
	switch u.Type {
	case "direct", "interface":
		if u.Type == "interface" && u.Interface == "" {
			return fmt.Errorf("type interface needs an interface")
		}
		return nil
	case "socks4", "socks5":
		if u.Address == "" {
			return fmt.Errorf("type %s needs an address", u.Type)
		}
		return nil
	case "shadowsocks":
		if u.URL == "" {
			return fmt.Errorf("type shadowsocks needs a url")
		}
		return nil
	}
	return fmt.Errorf("type is %q; want direct, socks4, socks5, shadowsocks or interface", u.Type)
}

// isHex reports whether s is size bytes as hex digits.
func isHex(s string, size int) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == size
}
