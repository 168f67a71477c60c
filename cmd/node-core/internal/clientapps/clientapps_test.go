package clientapps

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/cmd/node-core/internal/share"
	"nodeagent/coreapi"
)

// The templates and rules that come with node-core pass the checks of an operator's.
func TestBuiltIn(t *testing.T) {
	for _, template := range Templates(nil) {
		if err := CheckTemplate(template); err != nil {
			t.Errorf("%s: %v", template.Name, err)
		}
	}
	for _, r := range Rules(nil) {
		if err := CheckRule(r); err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
}

// A template that its client would not start with is refused, and the error names the line.
func TestWrongTemplates(t *testing.T) {
	for name, c := range map[string]struct{ form, body, want string }{
		"no form":             {"surge", "", `form "surge" is unknown`},
		"broken YAML":         {"mihomo", "a: 1\nb: [\n", "line 2"},
		"no mapping":          {"mihomo", "- a", "no mapping"},
		"broken JSON":         {"xray", "{\n\"a\": 1,\n}", "line 3"},
		"more than one":       {"xray", `{"outbounds":["{proxies}"]}` + "\n{}", "line 2: there is more"},
		"no proxies":          {"mihomo", "proxies: []", "0 items {proxies}"},
		"an expression":       {"mihomo", "proxies: ['{proxies}']\nproxy-groups:\n- {name: A, type: select, proxies: ['{names (}']}", "line 3"},
		"an unknown group":    {"mihomo", "proxies: ['{proxies}']\nrules:\n- DOMAIN,a.example,DIRECT\n- MATCH,Nobody", `line 4: "Nobody" is neither`},
		"a logical rule":      {"mihomo", "proxies: ['{proxies}']\nrules:\n- AND,((NETWORK,UDP),(DST-PORT,443)),Nobody", `"Nobody" is neither`},
		"two groups":          {"mihomo", "proxies: ['{proxies}']\nproxy-groups:\n- {name: A, proxies: [DIRECT]}\n- {name: A, proxies: [DIRECT]}", `two items have the name "A"`},
		"a final":             {"sing-box", `{"outbounds":["{proxies}"],"route":{"final":"gone"}}`, `"gone" is neither`},
		"a detour":            {"sing-box", `{"outbounds":["{proxies}"],` + "\n" + `"dns":{"servers":[{"detour":"gone"}]}}`, `line 2: "gone" is neither`},
		"a tag":               {"xray", `{"outbounds":["{proxies}"],"routing":{"rules":[{"outboundTag":"gone"}]}}`, `"gone" is neither`},
		"a reference":         {"mihomo", "a: &a {b: 1}\nc: *a\nproxies: ['{proxies}']", "line 2: *a is a reference"},
		"too long":            {"mihomo", strings.Repeat("#", maxBody+1), "want at most"},
		"too deep":            {"mihomo", "a: " + strings.Repeat("[", 60) + strings.Repeat("]", 60), "nested deeper"},
		"too deep, in JSON":   {"xray", `{"outbounds":["{proxies}"],"a":` + strings.Repeat("[", 60) + strings.Repeat("]", 60) + "}", "nested deeper"},
		"proxies in no list":  {"sing-box", `{"outbounds":"{proxies}"}`, "0 items {proxies}"},
		"a list that is none": {"mihomo", "proxies: ['{proxies}']\nproxy-groups: 7", "line 2: proxy-groups is no list"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckTemplate(coreapi.ClientTemplate{Name: "a", Form: c.form, Body: c.body})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A template has no name that an export can't give a file. A rule may have one, and may name an old template.
func TestNamesOfFiles(t *testing.T) {
	for name, want := range map[string]string{".x": "begins with a dot", "..": "begins with a dot", "page.en.html": `begins with "page."`, "page": "another form", "pages.v2": "", "x.y": "", "_x": ""} {
		err := CheckTemplate(coreapi.ClientTemplate{Name: name, Form: "xray", Body: `{"outbounds":["{proxies}"]}`})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	if err := CheckRule(coreapi.ClientRule{Name: ".rule", Form: ".x"}); err != nil {
		t.Errorf("a rule: %v", err)
	}
}

func way(name, protocol, network, security string) nodeconfig.Way {
	return nodeconfig.Way{Protocol: corestore.Protocol{Protocol: protocol}, Endpoint: &share.Endpoint{
		Name: name, Protocol: protocol, Host: "h.example", Port: 1, Account: share.Account{ID: "u", Password: "p", Encryption: "none"}, Stream: share.Stream{Network: network, Security: security},
	}}
}

// Names are names, whatever they look like, in every form. Each proxy has a name of its own, which is
// none of the template's, and groups have the names that their expression fits.
func TestNamesInTemplates(t *testing.T) {
	names := []string{"DE", "DE", "DE 2", "Proxy", "direct", "true", "null", "12", "~", "{proxies}", "{names}", "a: b # c", "\"}],x", "'", "- a", "☃\u2028", "*a", "&a", "!!int 7", "2026-11-29", "<script>"}
	var ways []nodeconfig.Way
	for _, name := range names {
		ways = append(ways, way(name, "trojan", "tcp", "tls"))
	}
	own := []coreapi.ClientTemplate{
		{Name: "mihomo", Form: "mihomo", Body: "# kept\nproxies: ['{proxies}']\nproxy-groups:\n- {name: Proxy, type: select, proxies: ['{names}']}\n- {name: DEs, type: select, proxies: ['{names ^DE}']}\n- {name: none, type: select, proxies: ['{names ^nothing}']}\n"},
		{Name: "sing-box", Form: "sing-box", Body: `{"outbounds":[{"type":"selector","tag":"Proxy","outbounds":["{names}"]},{"type":"selector","tag":"DEs","outbounds":["{names ^DE}"]},{"type":"selector","tag":"none","outbounds":["{names ^nothing}"]},"{proxies}"]}`},
	}
	apps, err := New(own, nil)
	if err != nil {
		t.Fatal(err)
	}
	for form, label := range map[string]string{"mihomo": "name", "sing-box": "tag"} {
		choice, _ := apps.Choose("", form)
		if err := CheckTemplate(choice.Template.ClientTemplate); err != nil {
			t.Fatal(err)
		}
		filled, err := choice.Template.Render(ways)
		if err != nil {
			t.Fatal(err)
		}
		var config map[string]any
		if form == "mihomo" {
			err = yaml.Unmarshal(filled, &config)
		} else {
			err = json.Unmarshal(filled, &config)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, filled)
		}
		proxies, groups := map[string]bool{}, map[string]map[string]any{}
		for _, list := range choice.Template.form.lists {
			items, _ := config[list].([]any)
			for _, item := range items {
				object := item.(map[string]any)
				name := object[label].(string)
				if object["password"] == nil {
					groups[name] = object
				} else if proxies[name] = true; groups[name] != nil {
					t.Errorf("%s: a proxy has the name of the group %s", form, name)
				}
			}
		}
		if len(proxies) != len(names) || !proxies["DE 2 2"] || !proxies["Proxy 2"] || !proxies["direct 2"] || !proxies["true"] || !proxies["{proxies}"] || !proxies["☃\u2028"] {
			t.Errorf("%s: the proxies are %v", form, proxies)
		}
		members := func(group string) []any {
			list, _ := groups[group]["proxies"].([]any)
			if form == "sing-box" {
				list, _ = groups[group]["outbounds"].([]any)
			}
			return list
		}
		if len(members("Proxy")) != len(names) || fmt.Sprint(members("DEs")) != "[DE DE 2 DE 2 2]" {
			t.Errorf("%s: the groups have %v and %v", form, members("Proxy"), members("DEs"))
		}
		if form == "mihomo" && (fmt.Sprint(members("none")) != "[REJECT]" || !strings.HasPrefix(string(filled), "# kept")) {
			t.Errorf("mihomo: an empty group is %v in %s", members("none"), filled)
		}
		if form == "sing-box" && groups["none"]["type"] != "block" {
			t.Errorf("sing-box: an empty group is %v", groups["none"])
		}
	}
}

// The longest word of a User-Agent decides, and a rule can say another form. An explicit form is that
// form, by the template of the application's family.
func TestChoose(t *testing.T) {
	body := "proxies: ['{proxies}']"
	apps, err := New([]coreapi.ClientTemplate{
		{Name: "verge", Form: "mihomo", Agents: []string{"Clash-Verge"}, Body: body},
		{Name: "broken", Form: "mihomo", Agents: []string{"broken"}, Body: "["},
	}, []coreapi.ClientRule{
		{Name: "a", Agents: []string{"Happ/"}, Below: "3.10", Form: "xray", Hide: []string{"xhttp"}, Headers: map[string]string{"announce": "Update {title}"}},
		{Name: "b", Hide: []string{"hysteria"}, Headers: map[string]string{"X-B": "ünï {user}"}},
		{Name: "c", Agents: []string{"gone"}, Form: "removed"},
	})
	if apps == nil || err == nil || !strings.Contains(err.Error(), "template broken") {
		t.Fatalf("got %v, %v", apps, err)
	}
	for _, c := range []struct{ agent, form, want, hide string }{
		{"clash-verge/v2.0", "", "verge", "hysteria"},
		{"Clash/1", "", "mihomo", "hysteria"},
		{"clash-verge/v2.0", "mihomo", "verge", "hysteria"},
		{"clash-verge/v2.0", "sing-box", "sing-box", "hysteria"},
		{"v2rayNG/1.9", "", "links", "hysteria"},
		{"v2rayNG/1.9", "plain", "plain", "hysteria"},
		{"v2rayNG/1.9", "verge", "verge", "hysteria"},
		{"Happ/3.9.1/ios", "", "xray", "hysteria xhttp"},
		{"Happ/3.9.1", "links", "links", "hysteria xhttp"},
		{"Happ/3.10", "", "links", "hysteria"},
		{"Happ/3.10.0.1", "", "links", "hysteria"},
		{"Happ/", "", "links", "hysteria"},
		{"gone/1", "", "links", "hysteria"},
		{"ClashforWindows/0.20.39", "", "mihomo", "hysteria vless"},
		{"ClashX Meta/1.3.1", "", "mihomo", "hysteria"},
		{"broken/1", "", "links", "hysteria"},
	} {
		choice, known := apps.Choose(c.agent, c.form)
		if !known || choice.Form != c.want || strings.Join(choice.Hide, " ") != c.hide {
			t.Errorf("%s, %q: got %q, %v without %v, want %q without %q", c.agent, c.form, choice.Form, known, choice.Hide, c.want, c.hide)
		}
	}
	if _, known := apps.Choose("", "windows"); known {
		t.Error("an unknown form is known")
	}
	header := http.Header{}
	choice, _ := apps.Choose("Happ/3.9", "")
	choice.SetHeaders(header, Values{"{title}": "VPN", "{user}": "a\r\nX-Evil: 1{title}"})
	if got := header.Get("Announce"); got != "Update VPN" {
		t.Errorf("the notice is %q", got)
	}
	if got := header.Get("X-B"); got != "base64:w7xuw68gYVgtRXZpbDogMXt0aXRsZX0=" {
		t.Errorf("the other header is %q", got)
	}
}

// The inbounds that a rule hides are left out, and nothing else.
func TestHidden(t *testing.T) {
	vision := way("v", "vless", "tcp", "reality")
	vision.Endpoint.Account.Flow = "xtls-rprx-vision"
	ways := []nodeconfig.Way{vision, way("x", "vless", "xhttp", "tls"), way("t", "trojan", "xhttp", "tls"), {Protocol: corestore.Protocol{Protocol: "mtproto"}, Links: []string{"tg://"}}}
	for hide, want := range map[string]string{"": "vxtm", "vless": "tm", "vless+xhttp": "vtm", "xhttp": "vm", "vision": "xtm", "mtproto": "vxt", "reality trojan": "xm"} {
		var left string
		for _, w := range ways {
			if !Hidden(w, strings.Fields(hide)) {
				if w.Endpoint == nil {
					left += "m"
				} else {
					left += w.Endpoint.Name
				}
			}
		}
		if left != want {
			t.Errorf("without %q there are %q, want %q", hide, left, want)
		}
	}
}

func TestWrongRules(t *testing.T) {
	for want, r := range map[string]coreapi.ClientRule{
		"the name":                {Name: "a b"},
		"means another form":      {Name: "page"},
		"want numbers":            {Name: "a", Agents: []string{"a"}, Below: "x"},
		"needs a word":            {Name: "a", Below: "1"},
		"form \"a b\" is unknown": {Name: "a", Form: "a b"},
		"the word \"quic\"":       {Name: "a", Hide: []string{"vless+quic"}},
		"is no name of a header":  {Name: "a", Headers: map[string]string{"a b": ""}},
		"is Core's own":           {Name: "a", Headers: map[string]string{"set-cookie": "a"}},
		"control characters":      {Name: "a", Headers: map[string]string{"a": "b\r\nc"}},
		"it can have":             {Name: "a", Headers: map[string]string{"a": "{uuid}"}},
		"is empty":                {Name: "a", Agents: []string{" "}},
		"want at most 20": {Name: "a", Headers: func() map[string]string {
			all := map[string]string{}
			for n := range 21 {
				all[fmt.Sprint("h", n)] = ""
			}
			return all
		}()},
	} {
		if err := CheckRule(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Whatever an operator stores, checking and filling it ends without a panic, and what passes the
// check can be read by a reader of its language.
func FuzzTemplate(f *testing.F) {
	for _, template := range Templates(nil) {
		f.Add(template.Form, template.Body, "DE: 1")
	}
	f.Add("mihomo", "proxies: ['{proxies}']\na: ['{names ^D}', '{names']", "{names}")
	f.Fuzz(func(t *testing.T, form, body, name string) {
		template := coreapi.ClientTemplate{Name: "a", Form: form, Body: body}
		if CheckTemplate(template) != nil {
			return
		}
		c, err := Compile(template)
		if err != nil {
			t.Fatal(err)
		}
		filled, err := c.Render([]nodeconfig.Way{way(name, "trojan", "tcp", "tls"), way(name, "vless", "ws", "none")})
		if err != nil {
			t.Fatal(err)
		}
		var config map[string]any
		if c.form.extension == "yaml" {
			err = yaml.Unmarshal(filled, &config)
		} else {
			err = json.Unmarshal(filled, &config)
		}
		if err != nil || slices.Contains(c.form.own, "") {
			t.Errorf("%v: %s", err, filled)
		}
	})
}
