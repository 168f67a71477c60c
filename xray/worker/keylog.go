package worker

import (
	"bytes"
	"encoding/json"
	"strings"
)

// withoutKeyLog returns an inbound or outbound without its members masterKeyLog, in any place: with
// one, xray-core would append the secrets of TLS to a file that Core names
// (transport/internet/tls/config.go:468).
func withoutKeyLog(config json.RawMessage) (json.RawMessage, error) {
	if !bytes.Contains(bytes.ToLower(config), []byte(`"masterkeylog"`)) {
		return config, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	removeKeyLog(tree)
	return json.Marshal(tree)
}

func removeKeyLog(tree any) {
	switch v := tree.(type) {
	case []any:
		for _, item := range v {
			removeKeyLog(item)
		}
	case map[string]any:
		for name, item := range v {
			if strings.EqualFold(name, "masterKeyLog") {
				delete(v, name)
			} else {
				removeKeyLog(item)
			}
		}
	}
}
