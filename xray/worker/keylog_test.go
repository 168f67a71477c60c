package worker

import (
	"encoding/json"
	"testing"
)

func TestWithoutKeyLog(t *testing.T) {
	for config, want := range map[string]string{
		`{"b": 1, "a":2}`: `{"b": 1, "a":2}`,
		`{"port":12345678901234567890,"streamSettings":{"tlsSettings":{"masterKeyLog":"/etc/x","alpn":["h2"]},"realitySettings":{"MASTERKEYLOG":"/y"}}}`: `{"port":12345678901234567890,"streamSettings":{"realitySettings":{},"tlsSettings":{"alpn":["h2"]}}}`,
		`{"x":[{"downloadSettings":{"tlsSettings":{"masterKeyLog":"/etc/x"}}}]}`:                                                                         `{"x":[{"downloadSettings":{"tlsSettings":{}}}]}`,
	} {
		if got, err := withoutKeyLog(json.RawMessage(config)); err != nil || string(got) != want {
			t.Errorf("%s: %s %v", config, got, err)
		}
	}
}
