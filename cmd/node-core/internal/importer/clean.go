package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// decode reads JSON and keeps numbers as they are written.
func decode(raw []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if decoder.More() {
		return errors.New("there is something behind the JSON value")
	}
	return nil
}

// object is a JSON object, nil for an empty text and null.
func objectOf(text string) (object map[string]any, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	return object, decode([]byte(text), &object)
}

// newInbound makes an inbound of Xray's object, from which panel-only members are taken.
func (p *panel) newInbound(config map[string]any) (*inbound, error) {
	in := &inbound{config: config, tag: text(config["tag"]), protocol: strings.ToLower(text(config["protocol"]))}
	if in.protocol == "" {
		return nil, errors.New("it has no protocol")
	}
	switch in.protocol {
	case "hysteria2":
		in.protocol = "hysteria"
	case "tunnel", "dokodemo-door", "vless", "vmess", "trojan", "shadowsocks", "hysteria", "wireguard", "socks", "mixed", "http":
	default:
		return nil, fmt.Errorf("the protocol %s is not imported", printable(in.protocol, 40))
	}
	config["protocol"] = in.protocol
	settings := member(config, "settings")
	delete(settings, "clients")
	if list, is := settings["fallbacks"].([]any); is && len(list) == 0 {
		delete(settings, "fallbacks")
	}
	switch in.protocol {
	case "vless":
		delete(settings, "encryption") // what clients have
		delete(settings, "selectedAuth")
		if text(settings["decryption"]) == "" {
			settings["decryption"] = "none"
		}
	case "shadowsocks":
		delete(settings, "ivCheck")
		if text(settings["password"]) == "" {
			delete(settings, "password")
		}
		if text(settings["method"]) == "" {
			settings["method"] = defaultMethod
		}
		in.method = strings.ToLower(text(settings["method"]))
	case "hysteria":
		settings["version"] = json.Number("2")
		withHTTP3(config)
	case "wireguard":
		settings["noKernelTun"] = true // a device of the kernel would need a privilege that the node does not have
	}
	config["settings"] = settings
	in.vision = p.cleanStream(in, config)
	return in, nil
}

// defaultMethod is what clients of Shadowsocks have in Marzban and remnawave, where the inbound says
// no method.
const defaultMethod = "chacha20-ietf-poly1305"

// cleanStream takes the members of panels from streamSettings, and notes the files that the inbound
// needs. It reports whether clients of the inbound can have a flow.
func (p *panel) cleanStream(in *inbound, config map[string]any) (vision bool) {
	if _, there := config["streamSettings"]; !there {
		return false
	}
	stream := member(config, "streamSettings")
	delete(stream, "externalProxy")
	if len(stream) == 0 {
		delete(config, "streamSettings")
		return false
	}
	for _, name := range []string{"realitySettings", "tlsSettings"} {
		if _, there := stream[name]; !there {
			continue
		}
		security := member(stream, name)
		own := member(security, "settings") // what 3x-ui keeps for links
		delete(security, "settings")
		for _, kept := range []string{"fingerprint"} {
			if value := text(own[kept]); value != "" && text(security[kept]) == "" {
				security[kept] = value
			}
		}
		for key, value := range security { // as the panels store what is not set
			if value == "" && key != "serverName" {
				delete(security, key)
			}
		}
		if text(own["mldsa65Verify"]) != "" {
			p.notes = append(p.notes, fmt.Sprintf("inbound %s: new links do not have the ML-DSA-65 key of REALITY; old ones go on working", in.tag))
		}
		p.noteFiles(in, security)
	}
	network, security := strings.ToLower(text(stream["network"])), strings.ToLower(text(stream["security"]))
	return in.protocol == "vless" && slices.Contains([]string{"", "tcp", "raw"}, network) && slices.Contains([]string{"tls", "reality"}, security)
}

// withHTTP3 makes a Hysteria inbound offer HTTP/3, which all of its clients ask for. 3x-ui stores the
// ALPN of its form for TLS over TCP, with which no client of Hysteria can agree.
func withHTTP3(config map[string]any) {
	stream, _ := config["streamSettings"].(map[string]any)
	tls, is := stream["tlsSettings"].(map[string]any)
	if list, set := tls["alpn"].([]any); is && set && len(list) > 0 && !slices.Contains(list, any("h3")) {
		tls["alpn"] = []any{"h3"}
	}
}

// noteFiles notes the certificate files of an inbound.
func (p *panel) noteFiles(in *inbound, tls map[string]any) {
	list, _ := tls["certificates"].([]any)
	for _, entry := range list {
		certificate, is := entry.(map[string]any)
		if !is {
			continue
		}
		for _, name := range []string{"certificateFile", "keyFile"} {
			if path := text(certificate[name]); path != "" {
				p.notes = append(p.notes, fmt.Sprintf("inbound %s needs the file %s on the node", printable(in.tag, 100), printable(path, 200)))
			}
		}
	}
}

// member returns a member of an object that is an object; an empty one, which becomes the member,
// where it is something else.
func member(object map[string]any, name string) map[string]any {
	found, is := object[name].(map[string]any)
	if !is {
		found = map[string]any{}
		object[name] = found
	}
	return found
}

func text(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// flexible is a number, or a text of one, as panels of different ages write it.
type flexible int64

// UnmarshalJSON reads a number, a text of one, true, false, null and "".
func (f *flexible) UnmarshalJSON(raw []byte) error {
	*f = 0
	word := strings.Trim(string(raw), `"`)
	switch word {
	case "", "null", "false":
		return nil
	case "true":
		*f = 1
		return nil
	}
	n, err := json.Number(word).Int64()
	if err != nil {
		var value float64
		if value, err = json.Number(word).Float64(); err != nil || value < -1<<62 || value > 1<<62 {
			return fmt.Errorf("%q is no number", printable(word, 40))
		}
		n = int64(value)
	}
	*f = flexible(n)
	return nil
}

// word is a text, or a number that stands for one.
type word string

// UnmarshalJSON reads a text, a number and null.
func (w *word) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		return json.Unmarshal(raw, (*string)(w))
	}
	if *w = word(raw); *w == "null" || *w == "false" {
		*w = ""
	}
	if strings.ContainsAny(string(*w), "{[") {
		return errors.New("there is an object where a text should be")
	}
	return nil
}
