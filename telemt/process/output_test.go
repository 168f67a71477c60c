package process

import (
	"strings"
	"testing"

	"nodeagent/telemt/service"
)

const secret = "0123456789abcdef0123456789abcdef"

func TestOutputHidesSecrets(t *testing.T) {
	o := newOutput(service.Desired{
		Upstreams: []service.Upstream{{Type: "socks5", Password: "pass-word"}, {Type: "shadowsocks", URL: "ss://abc@host:1"}},
		Advanced:  map[string]any{"upstreams": []any{map[string]any{"type": "socks5", "password": "of-advanced"}}},
	})
	for _, line := range []string{"socks5 of-advanced", "link tg://proxy?secret=ee" + secret + "6f6e65", "upstream pass-word", "url ss://abc@host:1 failed"} {
		said := o.add(line)
		for _, s := range []string{secret, "pass-word", "ss://abc", "of-advanced"} {
			if strings.Contains(said, s) {
				t.Errorf("%q tells a secret", said)
			}
		}
	}
}
