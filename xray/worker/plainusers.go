package worker

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/infra/conf"
	"github.com/xtls/xray-core/proxy/hysteria/account"
	"github.com/xtls/xray-core/proxy/trojan"
	"github.com/xtls/xray-core/proxy/vless"

	"nodeagent/xray/state"
)

// plainProtocol says how xray-core makes an account of a client whose object has an email, a secret and
// perhaps a flow, and nothing else. Nearly all clients are such. xray-core's own way, through JSON and
// protobuf and back, takes ten times the processor time, and most of a start with 100,000 clients.
type plainProtocol struct {
	secret string // the member
	// forAll are the members of the inbound's settings that say something about each client.
	forAll []string
	flows  []string // that a client may have besides none
	// accounts returns a function that returns what conf.InboundDetourConfig.Build makes of the members, before
	// protobuf; valid until its next call. AsAccount is xray-core's own.
	accounts func() func(secret, flow string) protocol.AsAccount
}

var plainProtocols = map[string]*plainProtocol{
	"vless": { // infra/conf/vless.go:37
		secret: "id", forAll: []string{"flow", "testseed"}, flows: []string{vless.XRV},
		accounts: func() func(id, flow string) protocol.AsAccount {
			a := &vless.Account{}
			return func(id, flow string) protocol.AsAccount {
				a.Id, a.Flow = id, flow
				return a
			}
		},
	},
	"vmess": { // infra/conf/vmess.go:62
		secret: "id",
		accounts: func() func(id, flow string) protocol.AsAccount {
			a := (&conf.VMessAccount{}).Build()
			return func(id, _ string) protocol.AsAccount {
				a.Id = id
				return a
			}
		},
	},
	"trojan": { // infra/conf/trojan.go:118
		secret: "password",
		accounts: func() func(password, flow string) protocol.AsAccount {
			a := &trojan.Account{}
			return func(password, _ string) protocol.AsAccount {
				a.Password = password
				return a
			}
		},
	},
	"hysteria": { // infra/conf/hysteria.go:47
		secret: "auth",
		accounts: func() func(auth, flow string) protocol.AsAccount {
			a := &account.Account{}
			return func(auth, _ string) protocol.AsAccount {
				a.Auth = auth
				return a
			}
		},
	},
}

// plainProtocolOf returns the protocol of an inbound whose clients may be plain; nil for another one.
func plainProtocolOf(detour conf.InboundDetourConfig) *plainProtocol {
	p := plainProtocols[strings.ToLower(detour.Protocol)] // as conf's loader reads the name
	if p == nil || detour.Settings == nil {
		return p
	}
	var settings map[string]json.RawMessage
	if json.Unmarshal(*detour.Settings, &settings) != nil {
		return nil
	}
	for name := range settings {
		if slices.ContainsFunc(p.forAll, func(member string) bool { return strings.EqualFold(member, name) }) {
			return nil
		}
	}
	return p
}

// build builds users into built, which is as long. It returns false, and xray-core is to build them, if
// one of them is not plain or has something that xray-core refuses.
func (p *plainProtocol) build(users []state.Client, built []*protocol.MemoryUser) bool {
	if p == nil {
		return false
	}
	accountOf := p.accounts()
	for i := range users {
		if built[i] = p.user(&users[i], accountOf); built[i] == nil {
			return false
		}
	}
	return true
}

// user returns the user of a plain client; nil for another one.
func (p *plainProtocol) user(client *state.Client, accountOf func(secret, flow string) protocol.AsAccount) *protocol.MemoryUser {
	var email, secret, flow []byte
	plain := plainMembers(client.Account, func(name, value []byte) bool {
		var into *[]byte
		switch string(name) {
		case "email":
			into = &email
		case p.secret:
			into = &secret
		case "flow":
			into = &flow
		default:
			return false
		}
		again := *into != nil
		*into = value
		return !again
	})
	if !plain || len(secret) == 0 || string(email) != client.Email {
		return nil
	}
	known := ""
	if len(flow) > 0 {
		at := slices.Index(p.flows, string(flow))
		if at < 0 {
			return nil
		}
		known = p.flows[at]
	}
	memory, err := accountOf(string(secret), known).AsAccount()
	if err != nil {
		return nil
	}
	return &protocol.MemoryUser{Account: memory, Email: client.Email}
}

// plainMembers calls each with the members of an object all of whose values are strings without escapes,
// until each returns false. It reports whether the object is such, and each has returned true for all.
func plainMembers(object []byte, each func(name, value []byte) bool) bool {
	rest, ok := bytes.CutPrefix(object, []byte("{"))
	for ok {
		var name, value []byte
		if name, rest, ok = plainText(rest); !ok {
			break
		}
		if rest, ok = bytes.CutPrefix(rest, []byte(":")); !ok {
			break
		}
		if value, rest, ok = plainText(rest); !ok || !each(name, value) {
			return false
		}
		if string(rest) == "}" {
			return true
		}
		rest, ok = bytes.CutPrefix(rest, []byte(","))
	}
	return false
}

// plainText reads a string without escapes, of printable ASCII, with which text begins.
func plainText(text []byte) (inner, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '"' {
		return nil, nil, false
	}
	for i, c := range text[1:] {
		switch {
		case c == '"':
			return text[1 : 1+i : 1+i], text[2+i:], true
		case c == '\\' || c < ' ' || c > '~':
			return nil, nil, false
		}
	}
	return nil, nil, false
}
