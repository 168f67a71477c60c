package nodeconfig

import (
	"encoding/json"
	"fmt"

	"nodeagent/cmd/node-core/internal/corestore"
)

// limits are members of every kind of client. A limit of 0 is none, and is left out.
type limits struct {
	LimitIPs              int64 `json:"limitIps,omitempty"`
	LimitConnections      int64 `json:"limitConnections,omitempty"`
	RateUpBitsPerSecond   int64 `json:"rateUpBitsPerSecond,omitempty"`
	RateDownBitsPerSecond int64 `json:"rateDownBitsPerSecond,omitempty"`
	// Grant is there for a client that is near the limit of its bytes alone.
	Grant *corestore.Grant `json:"grant,omitempty"`
}

func limitsOf(sub corestore.Subscription) limits {
	return limits{sub.LimitIPs, sub.LimitConnections, sub.RateUpBitsPerSecond, sub.RateDownBitsPerSecond, sub.Grant}
}

// account is a client of a SOCKS or HTTP inbound. Email is there for a user who is not called by the
// UUID: with it the node finds the client in clientMap.
type account struct {
	Email    string `json:"email,omitempty"`
	User     string `json:"user"`
	Password string `json:"pass"`
	limits
}

// setClients adds the subscriptions to the settings as clients of the protocol. A protocol
// without clients is left as it is.
func setClients(p corestore.Protocol, settings map[string]json.RawMessage, subs []corestore.Subscription) error {
	switch p.Protocol {
	case "socks", "http", "mixed":
		accounts := make([]account, 0, len(subs))
		of := newLogins(p, "")
		for _, sub := range subs {
			accounts = append(accounts, of.account(sub))
		}
		if p.Protocol != "http" {
			if err := set(settings, "auth", "password"); err != nil {
				return err
			}
		}
		return set(settings, "accounts", accounts)
	case "wireguard":
		return addPeers(p, settings, subs)
	}
	if clients := clientsOf(p, settings, subs); clients != nil {
		return set(settings, "clients", clients)
	}
	return nil
}

// client is a client of any other inbound. The protocol decides which members it has. Email is
// the UUID on all protocols: with it the node finds the client in clientMap.
type client struct {
	Email    string `json:"email"`
	ID       string `json:"id,omitempty"`
	Flow     string `json:"flow,omitempty"`
	Password string `json:"password,omitempty"`
	Method   string `json:"method,omitempty"`
	Auth     string `json:"auth,omitempty"`
	limits
}

// methodOf is the method of a Shadowsocks inbound. The node refuses a method that is no string.
func methodOf(settings map[string]json.RawMessage) (method string) {
	_ = json.Unmarshal(settings["method"], &method)
	return method
}

// clientsOf returns the "clients" member for the protocol, nil for a protocol without one.
func clientsOf(p corestore.Protocol, settings map[string]json.RawMessage, subs []corestore.Subscription) []client {
	if !hasClients(p.Protocol) {
		return nil
	}
	clients := make([]client, 0, len(subs))
	of := newLogins(p, methodOf(settings))
	for _, sub := range subs {
		clients = append(clients, of.client(sub))
	}
	return clients
}

// hasClients reports whether the settings of the protocol's inbounds have "clients".
func hasClients(protocol string) bool {
	switch protocol {
	case "vless", "vmess", "trojan", "shadowsocks", "hysteria":
		return true
	}
	return false
}

// account returns the subscription as a client of a SOCKS or HTTP inbound.
func (l logins) account(sub corestore.Subscription) account {
	a, own := account{limits: limitsOf(sub)}, l.of(sub)
	if own.id != sub.UUID {
		a.Email = sub.UUID
	}
	a.User, a.Password = own.id, own.password
	return a
}

// client returns the subscription as a client of an inbound that hasClients.
func (l logins) client(sub corestore.Subscription) client {
	c, own := client{Email: sub.UUID, limits: limitsOf(sub)}, l.of(sub)
	switch l.p.Protocol {
	case "vless":
		c.ID, c.Flow = own.id, own.flow
	case "vmess":
		c.ID = own.id
	case "shadowsocks":
		c.Password, c.Method = own.password, own.method
	case "hysteria":
		c.Auth = own.password
	default:
		c.Password = own.password
	}
	return c
}

// peer is a client of a WireGuard inbound.
type peer struct {
	Email        string   `json:"email"`
	PublicKey    string   `json:"publicKey"`
	PreSharedKey string   `json:"preSharedKey,omitempty"`
	AllowedIPs   []string `json:"allowedIPs"`
	KeepAlive    int64    `json:"keepAlive,omitempty"`
	limits
}

// peerOf returns the subscription as a peer of an inbound. One without a key of WireGuard is no peer:
// nothing says which address it would have.
func peerOf(p corestore.Protocol, sub corestore.Subscription) (of peer, is bool) {
	if len(sub.Credentials) == 0 { // as nearly always
		return of, false
	}
	own := sub.Credential(p)
	return peer{sub.UUID, own.PublicKey, own.PreSharedKey, own.AllowedIPs, own.KeepAlive, limitsOf(sub)}, own.PublicKey != ""
}

// addPeers adds the subscriptions that are peers to the peers that an operator has written into the
// inbound.
func addPeers(p corestore.Protocol, settings map[string]json.RawMessage, subs []corestore.Subscription) error {
	added := []peer{}
	for _, sub := range subs {
		if of, is := peerOf(p, sub); is {
			added = append(added, of)
		}
	}
	var fixed []json.RawMessage
	if raw, there := settings["peers"]; there {
		if err := json.Unmarshal(raw, &fixed); err != nil && len(added) == 0 {
			return nil // as the inbound says it: the node refuses it
		} else if err != nil {
			return fmt.Errorf("read the peers of the inbound: %w", err)
		}
	}
	all := make([]any, 0, len(fixed)+len(added))
	for _, of := range fixed {
		all = append(all, of)
	}
	for _, of := range added {
		all = append(all, of)
	}
	return set(settings, "peers", all)
}
