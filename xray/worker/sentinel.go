package worker

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/xtls/xray-core/infra/conf"
)

// withSentinel gives an inbound that has lost its last client one that nobody can
// be. xray-core takes a Shadowsocks 2022 inbound without any for the kind with a
// single password, which can't get users later, an HTTP proxy without accounts for one
// that is open to everybody, and a Hysteria inbound without clients for one that asks for
// hysteriaSettings.auth (transport/internet/hysteria/hub.go:62).
func withSentinel(detour *conf.InboundDetourConfig) error {
	if detour.Settings == nil {
		return nil
	}
	var settings map[string]json.RawMessage
	if err := json.Unmarshal(*detour.Settings, &settings); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	member, sentinel := sentinelOf(detour.Protocol, settings)
	if member == "" || string(settings[member]) != "[]" {
		return nil
	}
	var err error
	if settings[member], err = json.Marshal([]map[string]string{sentinel}); err != nil {
		return fmt.Errorf("encode %s: %w", member, err)
	}
	raw, err := json.Marshal(settings)
	if err != nil {
		return fmt.Errorf("encode settings: %w", err)
	}
	detour.Settings = (*json.RawMessage)(&raw)
	return nil
}

// sentinelOf is a client that nobody can be, and the member of the settings where
// it goes; none where an empty list means nobody.
func sentinelOf(protocol string, settings map[string]json.RawMessage) (member string, sentinel map[string]string) {
	switch strings.ToLower(protocol) {
	case "http", "mixed", "socks":
		return "accounts", map[string]string{"user": rand.Text(), "pass": rand.Text()}
	case "hysteria": // whose clients would be those of hysteriaSettings.auth
		return "clients", map[string]string{"email": "sentinel", "auth": rand.Text()}
	case "shadowsocks":
		var method string
		_ = json.Unmarshal(settings["method"], &method) // xray-core says what is wrong with it
		if !strings.HasPrefix(method, "2022-") {
			return "", nil
		}
		key := make([]byte, 32)
		if strings.Contains(method, "aes-128") {
			key = key[:16]
		}
		_, _ = rand.Read(key) // never fails
		return "clients", map[string]string{"email": "sentinel", "password": base64.StdEncoding.EncodeToString(key)}
	}
	return "", nil
}
