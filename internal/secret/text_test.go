package secret

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	jsonv1 "github.com/go-json-experiment/json/v1"
)

const word = "correct-horse-battery-staple"

// holder has a secret as the types of this module have it.
type holder struct {
	Name string
	Key  Text
	Keys []Text
	At   *Text
}

func TestTextHides(t *testing.T) {
	text := Text(word)
	all := holder{Name: "name", Key: text, Keys: []Text{text}, At: &text}
	written := map[string]string{"an error": fmt.Errorf("register: %w with %s", errors.New("refused"), text).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s", "%-40v|", "%t"} {
		for name, value := range map[string]any{"text": text, "pointer": &text, "struct": all, "pointer to struct": &all, "slice": []any{text}} {
			written[fmt.Sprint(verb, " of ", name)] = fmt.Sprintf(verb, value)
		}
	}
	written["Sprint"] = fmt.Sprint(text, all)
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"slog JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var out bytes.Buffer
		log := slog.New(handler(&out)).With("with", text)
		log.Info("text", "key", text, "pointer", &text, "struct", all, "any", []any{text}, slog.Group("group", "key", text))
		written[name] = out.String()
	}
	for name, encode := range map[string]func(any) ([]byte, error){"json": json.Marshal, "go-json-experiment": func(v any) ([]byte, error) { return jsonv1.Marshal(v) }} {
		for what, value := range map[string]any{"text": text, "struct": all, "map": map[string]any{"key": text}} {
			raw, err := encode(value)
			if err != nil {
				t.Errorf("%s of %s: %v", name, what, err)
			}
			written[name+" of "+what] = string(raw)
		}
	}
	raw, err := xml.Marshal(text)
	written["xml"] = string(raw)
	if err != nil {
		t.Error(err)
	}
	for how, got := range written {
		if strings.Contains(got, word) || strings.Contains(got, fmt.Sprintf("%x", word)) || strings.Contains(got, fmt.Sprintf("%X", word)) {
			t.Errorf("%s shows the secret: %s", how, got)
		}
		if !strings.Contains(got, "hidden") {
			t.Errorf("%s does not say that something is hidden: %s", how, got)
		}
	}
}

func TestTextIsRevealedAndDecoded(t *testing.T) {
	var in struct{ Key Text }
	if err := json.Unmarshal([]byte(`{"Key":"`+word+`"}`), &in); err != nil || in.Key.Reveal() != word {
		t.Errorf("decoded %q, %v; want %q", in.Key.Reveal(), err, word)
	}
}
