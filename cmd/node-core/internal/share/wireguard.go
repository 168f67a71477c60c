package share

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// WireGuard is what a peer of a WireGuard inbound needs. Keys are 32 bytes in base64. The caller of Read
// sets the members of the client: PrivateKey, PreSharedKey, Addresses, KeepAlive.
type WireGuard struct {
	ServerKey    string // public
	PrivateKey   string // of the client; empty for a subscription that is no peer
	PreSharedKey string // empty for none
	Addresses    []string
	KeepAlive    int64  // seconds, 0 for none
	MTU          int    // bytes
	Reserved     []byte // three bytes of each message's header, nil for zeros
}

// defaultMTU is that of Xray (infra/conf/wireguard.go, WireGuardConfig.Build).
const defaultMTU = 1420

func readWireGuard(settings map[string]json.RawMessage) (*WireGuard, error) {
	var s struct {
		MTU      int
		Reserved []byte
	}
	for name, to := range map[string]any{"mtu": &s.MTU, "reserved": &s.Reserved} {
		if err := unmarshal(settings[name], to); err != nil {
			return nil, fmt.Errorf("read %s of WireGuard: %w", name, err)
		}
	}
	raw, err := wireGuardKey(text(settings["secretkey"]))
	if err != nil {
		return nil, err
	}
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("read secretKey of WireGuard: it has %d bytes, want 32", len(raw))
	}
	w := &WireGuard{ServerKey: base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()), MTU: s.MTU, Reserved: s.Reserved}
	if w.MTU == 0 {
		w.MTU = defaultMTU
	}
	return w, nil
}

// wireGuardKey reads a key as Xray does: hex, or base64 of either alphabet, with or without padding
// (infra/conf/wireguard.go, ParseWireGuardKey).
func wireGuardKey(key string) ([]byte, error) {
	if raw, err := hex.DecodeString(key); err == nil && len(raw) == 32 {
		return raw, nil
	}
	key = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimSuffix(key, "="))
	raw, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		return nil, errors.New("read secretKey of WireGuard: it is neither hex nor base64")
	}
	return raw, nil
}

// peer returns the client's configuration, or an error that says why the client can't have one.
func (e Endpoint) peer() (*WireGuard, error) {
	w := e.Account.WireGuard
	switch {
	case w == nil || w.PrivateKey == "" || len(w.Addresses) == 0:
		return nil, unavailable("the subscription has no key of WireGuard; 'node-core import' brings the keys of another panel's peers")
	case isSet(e.Stream.Masks):
		return nil, unavailable("a link of WireGuard says no mask")
	}
	return w, nil
}

// wireGuardLink is in the form of v2rayN and 3x-ui.
func (e Endpoint) wireGuardLink() (string, error) {
	w, err := e.peer()
	if err != nil {
		return "", err
	}
	query := []parameter{
		{"publickey", w.ServerKey},
		{"presharedkey", w.PreSharedKey},
		{"address", strings.Join(w.Addresses, ",")},
		{"mtu", strconv.Itoa(w.MTU)},
		{"reserved", strings.Join(numbers(w.Reserved), ",")},
	}
	if w.KeepAlive > 0 {
		query = append(query, parameter{"keepalive", strconv.FormatInt(w.KeepAlive, 10)})
	}
	return e.withQuery("wireguard", url.QueryEscape(w.PrivateKey), query), nil
}

// WireGuardConfig returns the endpoint as a file of WireGuard's own programs, which read it from a QR
// code too. All traffic goes through the tunnel.
func WireGuardConfig(e Endpoint) (string, error) {
	w, err := e.peer()
	if err != nil {
		return "", err
	}
	if len(w.Reserved) > 0 {
		return "", unavailable("a file of WireGuard says no reserved bytes")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[Interface]\nPrivateKey = %s\nAddress = %s\nDNS = 1.1.1.1\nMTU = %d\n\n", w.PrivateKey, strings.Join(w.Addresses, ", "), w.MTU)
	fmt.Fprintf(&b, "[Peer]\nPublicKey = %s\n", w.ServerKey)
	if w.PreSharedKey != "" {
		fmt.Fprintf(&b, "PresharedKey = %s\n", w.PreSharedKey)
	}
	fmt.Fprintf(&b, "AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = %s\n", net.JoinHostPort(e.Host, strconv.Itoa(e.Port)))
	if w.KeepAlive > 0 {
		fmt.Fprintf(&b, "PersistentKeepalive = %d\n", w.KeepAlive)
	}
	return b.String(), nil
}

// xrayWireGuard returns the settings of Xray's outbound. It makes no device of the kernel: that would
// need rights that an application does not have.
func (e Endpoint) xrayWireGuard() (map[string]any, error) {
	w := e.Account.WireGuard
	if w == nil || w.PrivateKey == "" {
		_, err := e.peer()
		return nil, err
	}
	peer := map[string]any{"publicKey": w.ServerKey, "endpoint": net.JoinHostPort(e.Host, strconv.Itoa(e.Port))}
	if w.PreSharedKey != "" {
		peer["preSharedKey"] = w.PreSharedKey
	}
	if w.KeepAlive > 0 {
		peer["keepAlive"] = w.KeepAlive
	}
	settings := map[string]any{"secretKey": w.PrivateKey, "address": w.Addresses, "mtu": w.MTU, "noKernelTun": true, "peers": []any{peer}}
	if len(w.Reserved) > 0 {
		settings["reserved"] = w.Reserved
	}
	return settings, nil
}

func (e Endpoint) mihomoWireGuard(proxy map[string]any) error {
	w, err := e.peer()
	if err != nil {
		return err
	}
	proxy["type"], proxy["private-key"], proxy["public-key"], proxy["mtu"] = "wireguard", w.PrivateKey, w.ServerKey, w.MTU
	proxy["allowed-ips"] = []string{"0.0.0.0/0", "::/0"}
	for _, address := range w.Addresses {
		name := "ip"
		if prefix, err := netip.ParsePrefix(address); err == nil && prefix.Addr().Is6() {
			name = "ipv6"
		}
		if addr, err := netip.ParseAddr(address); err == nil && addr.Is6() {
			name = "ipv6"
		}
		if _, taken := proxy[name]; !taken { // mihomo has one of each
			proxy[name] = address
		}
	}
	if w.PreSharedKey != "" {
		proxy["pre-shared-key"] = w.PreSharedKey
	}
	if w.KeepAlive > 0 {
		proxy["persistent-keepalive"] = w.KeepAlive
	}
	if len(w.Reserved) > 0 {
		list := make([]int, len(w.Reserved)) // JSON and YAML would have bytes as a text
		for i, b := range w.Reserved {
			list[i] = int(b)
		}
		proxy["reserved"] = list
	}
	return nil
}

// numbers writes each byte as a number.
func numbers(bytes []byte) []string {
	all := make([]string, len(bytes))
	for i, b := range bytes {
		all[i] = strconv.Itoa(int(b))
	}
	return all
}
