package nodeconfig

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
)

// account is a client of SOCKS and HTTP.
type account struct {
	User     string `json:"user"`
	Password string `json:"pass"`
}

// setClients makes every subscription a client, in the way of the protocol.
func setClients(p corestore.Protocol, settings map[string]json.RawMessage, subs []corestore.Subscription) error {
	switch p.Protocol {
	case "socks", "http", "mixed":
		accounts := make([]account, 0, len(subs))
		for _, sub := range subs {
			accounts = append(accounts, account{sub.UUID, sub.UUID})
		}
		if p.Protocol != "http" {
			if err := set(settings, "auth", "password"); err != nil {
				return err
			}
		}
		return set(settings, "accounts", accounts)
	}
	if clients := clientsOf(p, settings, subs); clients != nil {
		return set(settings, "clients", clients)
	}
	return nil
}

// client is one client object; which members it has depends on the protocol.
// email is the UUID for all: it ties the client to the client map.
type client struct {
	Email    string `json:"email"`
	ID       string `json:"id,omitempty"`
	Flow     string `json:"flow,omitempty"`
	Password string `json:"password,omitempty"`
	Method   string `json:"method,omitempty"`
	Auth     string `json:"auth,omitempty"`
}

// shadowsocksClient is a client's password, and the method where a client has
// one of its own. The methods of 2022 want a key of their length, which is made
// of the UUID.
func shadowsocksClient(method, uuid string) (password, clientMethod string) {
	if !strings.HasPrefix(method, "2022-") {
		return uuid, method
	}
	sum := sha256.Sum256([]byte(uuid))
	size := len(sum)
	if strings.Contains(method, "aes-128") {
		size = 16
	}
	return base64.StdEncoding.EncodeToString(sum[:size]), ""
}

// clientsOf is nil for a protocol that has no clients of this kind.
func clientsOf(p corestore.Protocol, settings map[string]json.RawMessage, subs []corestore.Subscription) []client {
	var method string
	_ = json.Unmarshal(settings["method"], &method) // of shadowsocks alone; the node refuses what is none
	clients := make([]client, 0, len(subs))
	for _, sub := range subs {
		c := client{Email: sub.UUID}
		switch p.Protocol {
		case "vless":
			c.ID, c.Flow = sub.UUID, p.Link.Flow
		case "vmess":
			c.ID = sub.UUID
		case "trojan":
			c.Password = sub.UUID
		case "shadowsocks":
			c.Password, c.Method = shadowsocksClient(method, sub.UUID)
		case "hysteria":
			c.Auth = sub.UUID
		default:
			return nil
		}
		clients = append(clients, c)
	}
	return clients
}
