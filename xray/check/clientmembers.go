package check

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/members"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// checkClientMembers returns a fault for each new client with a member, or a flow, that Xray
// does not have. Of clients that differ only in name and key it looks at one.
func checkClientMembers(from, to state.State) error {
	found := map[string]map[uint64]error{} // by inbound and shape
	var all []error
	looksAt := func(state.Reading) bool { return true }
	for tag, client := range newClients(from, to, looksAt) {
		protocol := to.Inbounds[tag].Protocol
		if !state.Protocols[protocol].UserManager {
			continue // the accounts are in Config
		}
		if found[tag] == nil {
			found[tag] = map[uint64]error{}
		}
		shape := client.Reading.Shape
		err, known := found[tag][shape]
		if !known || shape == 0 || err != nil { // an error names its client
			if err = members.Clients(tag, protocol, []state.Client{*client}); err == nil {
				err = checkFlow(tag, protocol, client)
			}
			found[tag][shape] = err
		}
		if err != nil {
			all = append(all, ofClient(fault.Wrap(err, tag, "%v", err), client))
		}
	}
	return errors.Join(all...)
}

// checkFlow returns a fault for a VLESS client with a flow that Xray does not have
// (infra/conf/vless.go:72). xray-core would refuse all clients that are added with it.
func checkFlow(tag, protocol string, client *state.Client) error {
	var account struct{ Flow string }
	_ = json.Unmarshal(client.Account, &account) // xray-core says what is no text
	if protocol != "vless" || account.Flow == "" || account.Flow == state.FlowVision {
		return nil
	}
	return fault.InText(tag, "inbound %q, client: Xray has no flow %q; write %q or leave it out", tag, account.Flow, state.FlowVision)
}

// checkKeys returns a fault for each new client of Shadowsocks 2022 and WireGuard whose key has
// another form or length than the protocol wants. xray-core would refuse all clients that are
// added with it.
func checkKeys(from, to state.State) error {
	var all []error
	for tag, client := range newClients(from, to, func(state.Reading) bool { return true }) {
		in := to.Inbounds[tag]
		want, raw := 0, []byte(nil)
		switch method := strings.ToLower(in.View().Settings.Method); {
		case in.Protocol == "shadowsocks" && strings.HasPrefix(method, "2022-"):
			want = 32
			if strings.Contains(method, "aes-128") {
				want = 16
			}
			var account struct{ Password string }
			_ = json.Unmarshal(client.Account, &account) // parse has decoded it before
			raw, _ = base64.StdEncoding.DecodeString(account.Password)
		case in.Protocol == "wireguard":
			want = 32
			raw, _ = base64.StdEncoding.DecodeString(parse.PublicKeyOf(client.Account))
		}
		if len(raw) != want {
			member := map[string]string{"shadowsocks": "password", "wireguard": "publicKey"}[in.Protocol]
			all = append(all, ofClient(fault.InText(tag, "inbound %q: the %s of %s is not %d bytes in base64, as its protocol wants", tag, member, clientLabel(client), want), client))
		}
	}
	return errors.Join(all...)
}

// OfClients returns the fault over one client that the worker has named (fault.Fault.ClientEmail)
// as a fault of that client, and of each client of the inbound that differs from it only in
// name and key: parse has found wrong keys. Any other error is returned as it is.
func OfClients(err error, to state.State) error {
	f := fault.From(err)
	if f == nil || f.ClientEmail == "" {
		return err
	}
	in := to.Inbounds[f.Tag]
	named := in.Clients.Find(f.ClientEmail)
	if named == nil {
		return err
	}
	everyKey := state.Protocols[in.Protocol].EveryKey
	var all []error
	for _, client := range in.Clients {
		if client.Email == named.Email || !everyKey && client.Reading.Shape == named.Reading.Shape {
			one := *f
			all = append(all, ofClient(&one, client))
		}
	}
	return errors.Join(all...)
}
