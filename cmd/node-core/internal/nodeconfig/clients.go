package nodeconfig

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
)

// limits are members of every kind of client. A limit of 0 is none, and is left out.
type limits struct {
	LimitIPs              int64 `json:"limitIps,omitempty"`
	LimitConnections      int64 `json:"limitConnections,omitempty"`
	RateUpBitsPerSecond   int64 `json:"rateUpBitsPerSecond,omitempty"`
	RateDownBitsPerSecond int64 `json:"rateDownBitsPerSecond,omitempty"`
}

func limitsOf(sub corestore.Subscription) limits {
	return limits{sub.LimitIPs, sub.LimitConnections, sub.RateUpBitsPerSecond, sub.RateDownBitsPerSecond}
}

// account is a client of a SOCKS or HTTP inbound.
type account struct {
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
		for _, sub := range subs {
			accounts = append(accounts, account{sub.UUID, sub.UUID, limitsOf(sub)})
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

// shadowsocksClient returns the password of a client and its method, which is empty for the
// 2022 methods: there all clients have the inbound's method. Those methods need a base64 key
// of 16 or 32 bytes as the password, which is derived from the UUID.
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

// DerivedPasswords returns the passwords that are derived from a subscription's UUID.
func DerivedPasswords(sub corestore.Subscription) []string {
	short, _ := shadowsocksClient("2022-blake3-aes-128-gcm", sub.UUID)
	long, _ := shadowsocksClient("2022-blake3-aes-256-gcm", sub.UUID)
	return []string{short, long}
}

// clientsOf returns the "clients" member for the protocol, nil for a protocol without one.
func clientsOf(p corestore.Protocol, settings map[string]json.RawMessage, subs []corestore.Subscription) []client {
	var method string
	_ = json.Unmarshal(settings["method"], &method) // only shadowsocks has it; the node refuses a method that is no string
	clients := make([]client, 0, len(subs))
	for _, sub := range subs {
		c := client{Email: sub.UUID, limits: limitsOf(sub)}
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
