package worker

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/xtls/xray-core/infra/conf"
)

// withSentinel gives a Shadowsocks 2022 inbound without clients one that nobody
// can be: xray-core takes one without any for the kind with a single password,
// which can't get users later.
func withSentinel(detour *conf.InboundDetourConfig) error {
	if !strings.EqualFold(detour.Protocol, "shadowsocks") || detour.Settings == nil {
		return nil
	}
	var settings map[string]json.RawMessage
	if err := json.Unmarshal(*detour.Settings, &settings); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	var method string
	_ = json.Unmarshal(settings["method"], &method) // xray-core says what is wrong with it
	if !strings.HasPrefix(method, "2022-") || string(settings["clients"]) != "[]" {
		return nil
	}
	key := make([]byte, 32)
	if strings.Contains(method, "aes-128") {
		key = key[:16]
	}
	_, _ = rand.Read(key) // never fails
	clients, err := json.Marshal([]map[string]string{{
		"email": "sentinel", "password": base64.StdEncoding.EncodeToString(key),
	}})
	if err != nil {
		return fmt.Errorf("encode clients: %w", err)
	}
	settings["clients"] = clients
	raw, err := json.Marshal(settings)
	if err != nil {
		return fmt.Errorf("encode settings: %w", err)
	}
	detour.Settings = (*json.RawMessage)(&raw)
	return nil
}
