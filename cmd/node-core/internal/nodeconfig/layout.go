package nodeconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire/delta"
)

// ErrOwnLists means that a node's configuration has no Layout: an inbound has a list of clients
// beside the one that Core writes, or peers of WireGuard that can't be told apart. Build makes it.
var ErrOwnLists = errors.New("an inbound has a list of clients of its own")

// Layout is a node's configuration without its clients: what Build makes of rows without
// subscriptions, and where which of them stand in it.
type Layout struct {
	// Mapped are the groups whose clients are in clientMap.
	Mapped   []int64
	Inbounds []Inbound // those of Xray and then those of MTProto
	// Xray and MTProto are the other members of the services, in the order of the document. MTProto
	// counts only where there is an inbound of it.
	Xray, MTProto []Member
}

// Member is a member of a JSON object.
type Member struct {
	Name string
	Raw  json.RawMessage
}

// Inbound is an inbound without its clients.
type Inbound struct {
	Service string // delta.Xray or delta.MTProto
	Tag     string
	ID      int64 // nodeProtocolId
	Raw     json.RawMessage
	// List is the offset of the empty list of clients in Raw; 0 where there is none.
	List int
	// Form is how clients look in the list.
	Form Form
	// Groups are those whose clients are in the list, one group behind the other.
	Groups []int64
	// Fixed are the clients that stand in the list before all others: peers of WireGuard that an
	// operator has written.
	Fixed []Fixed
}

// Fixed is a client that is no subscription.
type Fixed struct {
	Key string // delta.ClientKey
	Raw json.RawMessage
}

// Form is how a client looks in the lists of some inbounds: the same subscription is the same
// bytes in all lists of one form, unless it has a credential for one inbound. It can be compared.
type Form struct {
	service, protocol, flow, method string
	vision                          bool
}

// LayoutOf returns the layout of a node. Subscriptions of the rows do not count. The error is
// ErrOwnLists where there is none.
func LayoutOf(rows corestore.NodeRows) (*Layout, error) {
	l := &Layout{}
	if rows.Node.Serves() {
		l.Mapped = rows.Reach.Mapped()
	}
	var telegram []Inbound
	for _, p := range rows.Protocols {
		if !rows.Node.Serves() || !p.Enabled || LeftOut(rows.Node, p) {
			continue
		}
		in := Inbound{Service: delta.Xray, Tag: p.Tag, ID: p.ID}
		for _, group := range l.Mapped {
			if rows.Reach.Has(group, p.ID) {
				in.Groups = append(in.Groups, group)
			}
		}
		if p.Protocol == mtproto {
			in.Service = delta.MTProto
		}
		var err error
		if in.Raw, in.Form, err = bareInbound(p, rows.Routing); err != nil {
			return nil, err
		}
		if p.Protocol == "wireguard" {
			if err := in.takeFixed(); err != nil {
				return nil, err
			}
		}
		if in.List, err = in.listAt(); err != nil {
			return nil, err
		}
		if in.Service == delta.MTProto {
			telegram = append(telegram, in)
		} else {
			l.Inbounds = append(l.Inbounds, in)
		}
	}
	l.Inbounds = append(l.Inbounds, telegram...)
	if err := l.addMembers(rows, len(telegram) > 0); err != nil {
		return nil, err
	}
	return l, nil
}

// bareInbound returns an inbound without clients, and their form.
func bareInbound(p corestore.Protocol, routing *corestore.Routing) (raw json.RawMessage, form Form, err error) {
	if p.Protocol == mtproto {
		in, err := mtprotoWith(p, nil)
		if err != nil {
			return nil, form, err
		}
		raw, err = json.Marshal(in)
		return raw, Form{service: delta.MTProto}, err
	}
	if raw, err = inbound(p, nil, routing); err != nil {
		return nil, form, fmt.Errorf("protocol %s: %w", p.Tag, err)
	}
	var in struct {
		Settings map[string]json.RawMessage `json:"settings"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, form, fmt.Errorf("protocol %s: read the settings of the inbound: %w", p.Tag, err)
	}
	of := newLogins(p, methodOf(in.Settings))
	return raw, Form{delta.Xray, p.Protocol, p.Link.Flow, of.method, of.vision}, nil
}

// takeFixed takes the peers that an operator has written out of Raw.
func (in *Inbound) takeFixed() error {
	bare, peers, err := delta.Strip(in.Service, in.Raw)
	if err != nil {
		return fmt.Errorf("protocol %s: %w", in.Tag, ErrOwnLists)
	}
	keys := map[string]bool{}
	for _, raw := range peers {
		key, err := delta.ClientKey(raw)
		if err != nil || keys[key] { // the document can't be taken apart
			return fmt.Errorf("protocol %s: %w", in.Tag, ErrOwnLists)
		}
		keys[key] = true
		in.Fixed = append(in.Fixed, Fixed{key, raw})
	}
	in.Raw = bare
	return nil
}

// listAt returns where the list of clients is. It is an error where that is not the list that Core
// fills.
func (in *Inbound) listAt() (int, error) {
	tag, at, err := delta.Bare(in.Service, in.Raw)
	if err != nil || tag != in.Tag {
		return 0, fmt.Errorf("protocol %s: %w", in.Tag, ErrOwnLists)
	}
	want := ""
	switch {
	case in.Service == delta.MTProto, hasClients(in.Form.protocol):
		want = `"clients":[]`
	case in.Form.hasAccounts():
		want = `"accounts":[]`
	case in.Form.protocol == "wireguard":
		want = `"peers":[]`
	case at == 0:
		return 0, nil
	}
	if before := at + len("[]") - len(want); at == 0 || want == "" || before < 0 || string(in.Raw[before:at+len("[]")]) != want {
		return 0, fmt.Errorf("protocol %s: %w", in.Tag, ErrOwnLists)
	}
	return at, nil
}

func (f Form) hasAccounts() bool {
	return f.protocol == "socks" || f.protocol == "http" || f.protocol == "mixed"
}

// Append appends the client of a subscription as it stands in the list of an inbound. It appends nothing
// for a subscription that is no client there, as without a key on an inbound of WireGuard.
func (f Form) Append(to []byte, inbound int64, sub corestore.Subscription) ([]byte, error) {
	of := logins{corestore.Protocol{ID: inbound, Protocol: f.protocol}, f.method, f.vision}
	of.p.Link.Flow = f.flow
	var client any
	switch {
	case f.service == delta.MTProto:
		client = mtprotoClientOf(sub)
	case f.hasAccounts():
		client = of.account(sub)
	case f.protocol == "wireguard":
		peer, is := peerOf(of.p, sub)
		if !is {
			return to, nil
		}
		client = peer
	default:
		client = of.client(sub)
	}
	raw, err := json.Marshal(client)
	if err != nil {
		return to, fmt.Errorf("encode a client: %w", err)
	}
	return append(to, raw...), nil
}

// AppendEntry appends the value of the subscription's entry in clientMap, as encoding/json encodes a
// wire.ClientRef: a document has as many as clients.
func AppendEntry(to []byte, sub corestore.Subscription) []byte {
	to = strconv.AppendInt(append(to, `{"userId":`...), sub.UserID, 10)
	return append(strconv.AppendInt(append(to, `,"subscriptionId":`...), sub.ID, 10), '}')
}

// addMembers sets the other members of the services.
func (l *Layout) addMembers(rows corestore.NodeRows, telegram bool) error {
	routing, blocks, err := routingOf(rows.Routing)
	if err != nil {
		return err
	}
	outbounds, err := outboundsWith(rows, blocks)
	if err != nil {
		return err
	}
	options, err := parseMTProtoOptions(rows.Node.MTProto)
	if err != nil {
		return err
	}
	add := func(to *[]Member, name string, value any, has bool) {
		if !has || err != nil {
			return
		}
		var raw json.RawMessage
		if raw, err = json.Marshal(value); err == nil {
			*to = append(*to, Member{name, raw})
		}
	}
	add(&l.Xray, "outbounds", outbounds, true)
	add(&l.Xray, "routing", routing.Routing, true)
	add(&l.Xray, "dns", routing.DNS, len(routing.DNS) > 0)
	add(&l.Xray, "policy", routing.Policy, len(routing.Policy) > 0)
	add(&l.MTProto, "upstreams", options.Upstreams, telegram && len(options.Upstreams) > 0)
	add(&l.MTProto, "advanced", options.Advanced, telegram && len(options.Advanced) > 0)
	return err
}
