package clientapps

import (
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"nodeagent/cmd/node-core/internal/share"
)

// Whatever a name or a password is, mihomo reads it as it is, and the rest of the answer too.
func TestTextsInYAML(t *testing.T) {
	check := func(t rapid.TB, name, password string) {
		t.Helper()
		f := filling{proxies: []map[string]any{{"name": name, "password": password}}}
		filled, err := f.node(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: proxiesItem}}})
		if err != nil {
			t.Fatal(err)
		}
		filled.Content = append(filled.Content, share.YAMLText(name))
		written, err := yaml.Marshal(filled)
		if err != nil {
			t.Fatal(err)
		}
		var read []any
		if err := yaml.Unmarshal(written, &read); err != nil {
			t.Fatalf("name %q, password %q: %v in\n%s", name, password, err, written)
		}
		proxy, _ := read[0].(map[string]any)
		if proxy["name"] != name || proxy["password"] != password || read[1] != name {
			t.Fatalf("name %q, password %q: got %q of\n%s", name, password, read, written)
		}
	}
	for _, odd := range []string{"\t\n", "\n\ta", "a\n", "\r\n", " ", "\u0085", "\u2028\t", "~", "1e3", "- a", "#", "'\n\""} {
		check(t, odd, "plain")
		check(t, "plain", odd)
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.String().Draw(t, "name"), rapid.String().Draw(t, "password"))
	})
}
