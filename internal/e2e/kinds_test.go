package e2e

import (
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"testing"

	"nodeagent/xray/state"
)

// protocolKind is a protocol over a transport: it makes an inbound, an account of the inbound,
// and the outbound of a stock client.
type protocolKind struct {
	protocol string
	settings map[string]any
	account  func(uuid string) map[string]any
	proxy    func(port int, uuid string) map[string]any // settings of the outbound
	streams  streams
}

func (k protocolKind) config(port int) map[string]any {
	config := map[string]any{"listen": "127.0.0.1", "port": port, "protocol": k.protocol, "settings": k.settings}
	if k.streams.server != nil {
		config["streamSettings"] = k.streams.server
	}
	return config
}

func (k protocolKind) outbound(port int, uuid string) map[string]any {
	outbound := map[string]any{"protocol": k.protocol, "settings": k.proxy(port, uuid)}
	if k.streams.client != nil {
		outbound["streamSettings"] = k.streams.client
	}
	return outbound
}

// withClients returns an inbound's configuration with clients in it.
func withClients(config map[string]any, clients []any) map[string]any {
	at := state.Protocols[config["protocol"].(string)].ClientsAt
	return with(maps.Clone(config), "settings", with(maps.Clone(config["settings"].(map[string]any)), at, clients))
}

func kindVLESS(flow string, s streams) protocolKind {
	return protocolKind{"vless", map[string]any{"decryption": "none"}, func(uuid string) map[string]any {
		return map[string]any{"email": uuid, "id": uuid, "flow": flow}
	}, func(port int, uuid string) map[string]any {
		return vnext(port, map[string]any{"id": uuid, "encryption": "none", "flow": flow})
	}, s}
}

func kindVMess(s streams) protocolKind {
	return protocolKind{"vmess", map[string]any{}, func(uuid string) map[string]any {
		return map[string]any{"email": uuid, "id": uuid}
	}, func(port int, uuid string) map[string]any {
		return vnext(port, map[string]any{"id": uuid, "security": "auto"})
	}, s}
}

func kindTrojan(s streams) protocolKind {
	return protocolKind{"trojan", map[string]any{}, func(uuid string) map[string]any {
		return map[string]any{"email": uuid, "password": uuid}
	}, func(port int, uuid string) map[string]any {
		return servers(port, map[string]any{"password": uuid})
	}, s}
}

func kindShadowsocks() protocolKind {
	const method = "2022-blake3-aes-128-gcm"
	key := func(uuid string) string {
		sum := sha256.Sum256([]byte(uuid))
		return base64.StdEncoding.EncodeToString(sum[:16])
	}
	return protocolKind{"shadowsocks", map[string]any{"method": method, "password": serverKey, "network": "tcp"}, func(uuid string) map[string]any {
		return map[string]any{"email": uuid, "password": key(uuid)}
	}, func(port int, uuid string) map[string]any {
		return servers(port, map[string]any{"password": serverKey + ":" + key(uuid), "method": method})
	}, streams{}}
}

func kindSOCKS() protocolKind {
	return protocolKind{"socks", map[string]any{"auth": "password", "udp": true, "ip": "127.0.0.1"}, func(uuid string) map[string]any {
		return map[string]any{"user": uuid, "pass": uuid}
	}, func(port int, uuid string) map[string]any {
		return servers(port, map[string]any{"users": []any{map[string]any{"user": uuid, "pass": uuid}}})
	}, streams{}}
}

// kindWireGuard has one client, whose key is made here.
func kindWireGuard(tb testing.TB) protocolKind {
	server, own := newWireGuardKey(tb), newWireGuardKey(tb)
	const address = "10.9.0.2/32"
	of := func(key *ecdh.PrivateKey) map[string]any {
		return map[string]any{"secretKey": wireGuardText(key.Bytes()), "mtu": 1420, "noKernelTun": true}
	}
	return protocolKind{"wireguard", of(server), func(uuid string) map[string]any {
		return map[string]any{"email": uuid, "publicKey": wireGuardText(own.PublicKey().Bytes()), "allowedIPs": []string{address}}
	}, func(port int, _ string) map[string]any {
		peer := map[string]any{"endpoint": loopback(port), "publicKey": wireGuardText(server.PublicKey().Bytes())}
		return with(with(of(own), "address", []string{address}), "peers", []any{peer})
	}, streams{}}
}
