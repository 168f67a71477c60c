package versions

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/xtls/xray-core/core"

	"nodeagent/xray/members"
	"nodeagent/xray/state"
)

var (
	first    = Version{26, 3, 27} // that an agent embedded
	embedded = func() Version { v, _ := OfAgent("xray/" + core.Version()); return v }()
)

func TestCurrent(t *testing.T) {
	if Current != embedded {
		t.Errorf("Current is %s, and Xray %s is embedded", Current, embedded)
	}
}

func TestOfAgent(t *testing.T) {
	for agent, want := range map[string]string{
		"node-agent/1.2.3 xray/26.7.28":                  "26.7.28",
		"node-agent/dev xray/26.7.28 telemt/3.4.25":      "26.7.28",
		"node-agent/dev (xray 26.3.27)":                  "26.3.27",
		"node-agent/1.0.0 (xray 26.3.27, telemt 3.4.25)": "26.3.27",
		"node-agent":                      "",
		"":                                "",
		"node-agent/1.2.3 xray/26.7":      "",
		"node-agent/1.2.3 xray/x.y.z":     "",
		"node-agent/1.2.3 myxray/26.7.28": "",
		"xray/26.7.28.1":                  "",
	} {
		v, ok := OfAgent(agent)
		if ok != (want != "") || ok && v.String() != want {
			t.Errorf("%q has %s, %t; want %q", agent, v, ok, want)
		}
	}
}

func TestBefore(t *testing.T) {
	for _, row := range []struct {
		a, b   Version
		before bool
	}{
		{first, embedded, true},
		{embedded, first, false},
		{first, first, false},
		{Version{26, 4, 1}, Version{26, 3, 27}, false},
		{Version{26, 9, 1}, Version{26, 10, 1}, true},
	} {
		if got := row.a.Before(row.b); got != row.before {
			t.Errorf("%s before %s: %t", row.a, row.b, got)
		}
	}
}

// example makes an object that has the feature alone.
func (f feature) example() map[string]any {
	var value any = "1"
	if len(f.is) > 0 {
		value = strings.ToUpper(f.is[0]) // Xray reads any letter case
	}
	for _, step := range slices.Backward(strings.Split(f.path, ".")) {
		name, list := strings.CutSuffix(step, "[]")
		if strings.HasSuffix(name, "?") {
			continue
		}
		if list {
			value = []any{value}
		}
		name, _, _ = strings.Cut(name, "|")
		value = map[string]any{name: value}
	}
	object := value.(map[string]any)
	if len(f.protocols) > 0 {
		object["protocol"] = f.protocols[0]
	} else {
		object["protocol"] = "vless"
	}
	return object
}

// fits returns the texts of the misfits on the side that the feature is on.
func (f feature) fits(t *testing.T, object map[string]any, v Version) string {
	t.Helper()
	raw, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	find := Inbound
	if f.in == inOutbound {
		find = Outbound
	}
	var texts []string
	for _, m := range find(raw, v) {
		if !m.Refused || m.Newer != strings.Contains(m.Text, " needs Xray ") {
			t.Errorf("%s: %+v", f.name, m)
		}
		texts = append(texts, m.Text)
	}
	return strings.Join(texts, "\n")
}

// Each feature is named for a version that does not have it, and for no other one.
func TestFeatures(t *testing.T) {
	for _, f := range features {
		day := func(v Version, days int) Version { v[2] += days; return v }
		if f.since != (Version{}) {
			want := fmt.Sprintf("%s needs Xray %s", f.name, f.since)
			if got := f.fits(t, f.example(), day(f.since, -1)); !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
				t.Errorf("before: %q, want %q alone", got, want)
			}
			if got := f.fits(t, f.example(), f.since); got != "" {
				t.Errorf("since: %q", got)
			}
		}
		if f.until != (Version{}) {
			want := fmt.Sprintf("%s is gone since Xray %s", f.name, f.until)
			if got := f.fits(t, f.example(), f.until); !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
				t.Errorf("until: %q, want %q alone", got, want)
			}
			if got := f.fits(t, f.example(), day(f.until, -1)); got != "" {
				t.Errorf("before the end: %q", got)
			}
		}
		object := f.example()
		object["protocol"] = "other"
		if got := f.fits(t, object, first); len(f.protocols) > 0 && got != "" {
			t.Errorf("another protocol: %q", got)
		}
	}
}

// The table agrees with the Xray that is embedded: the worker's check of members takes what
// the table says that this version has, and refuses what it says is gone.
func TestFeaturesOfTheEmbeddedXray(t *testing.T) {
	for _, f := range features {
		if embedded.Before(f.since) {
			t.Errorf("%s needs a newer Xray (%s) than the one that is embedded", f.name, f.since)
		}
		if strings.HasPrefix(f.name, "the cipher") || strings.HasPrefix(f.name, `"domain" `) {
			continue // Xray itself refuses it when it builds the inbound: TestRemovedFeaturesAreNamed
		}
		object := f.example()
		for _, kinds := range []string{"tcp", "udp"} { // a mask needs its kind
			masks := find(object, "streamSettings.finalmask."+kinds+"[]")
			for _, mask := range masks {
				if members := mask.(map[string]any); members["type"] == nil {
					members["type"] = maskNamed(f.name)
				}
			}
		}
		raw, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		op := &state.Operation{Inbound: &state.Inbound{Tag: "x", Protocol: object["protocol"].(string), Config: raw}}
		if f.in == inOutbound {
			op = &state.Operation{Outbound: &state.Outbound{Tag: "x", Config: raw}}
		}
		switch err := members.Operation(op); {
		case f.until == (Version{}) && err != nil && strings.Contains(err.Error(), "unknown"):
			t.Errorf("%s is in the table without an end, and is refused: %v", f.name, err)
		case f.until != (Version{}) && err == nil:
			t.Errorf("%s is gone since %s, and is taken", f.name, f.until)
		}
	}
}

// maskNamed is the mask that a feature's name names: the last quoted word.
func maskNamed(name string) string {
	words := strings.Split(name, `"`)
	return words[len(words)-2]
}

func TestChanges(t *testing.T) {
	const (
		reality  = `{"protocol":"vless","streamSettings":{"security":"reality","realitySettings":{}}}`
		oneMask  = `{"protocol":"vless","streamSettings":{"finalmask":{"tcp":[{"type":"fragment"}],"udp":[{"type":"noise"}]}}}`
		twoMasks = `{"protocol":"vless","streamSettings":{"finalmask":{"tcp":[{"type":"fragment"},{"type":"sudoku"}]}}}`
	)
	for name, row := range map[string]struct {
		find func(json.RawMessage, Version) []Misfit
		raw  string
		v    Version
		says string // empty: nothing
	}{
		"REALITY on a new node":          {Inbound, reality, embedded, "minClientVer"},
		"REALITY on an old node":         {Inbound, reality, first, ""},
		"REALITY for older clients":      {Inbound, strings.Replace(reality, "{}}}", `{"minClientVer":"1.8.0"}}}`, 1), embedded, ""},
		"REALITY of an outbound":         {Outbound, reality, embedded, ""},
		"one mask of each kind":          {Inbound, oneMask, first, ""},
		"two masks on an old node":       {Inbound, twoMasks, first, "from the first to the last"},
		"two masks on a new node":        {Inbound, twoMasks, embedded, ""},
		"two masks of an outbound":       {Outbound, twoMasks, first, "from the first to the last"},
		"an inbound that cannot be read": {Inbound, `{"protocol":`, first, ""},
		"members of other types":         {Inbound, `{"protocol":1,"streamSettings":[],"settings":null,"sniffing":"x"}`, first, ""},
	} {
		t.Run(name, func(t *testing.T) {
			found := row.find(json.RawMessage(row.raw), row.v)
			if row.says == "" && len(found) > 0 || row.says != "" && (len(found) != 1 || !strings.Contains(found[0].Text, row.says) || found[0].Refused) {
				t.Errorf("got %+v, want %q", found, row.says)
			}
		})
	}
}

// In extra, and with other letters, members of XHTTP are the same.
func TestMembersInExtra(t *testing.T) {
	for _, settings := range []string{
		`"xhttpSettings":{"sessionIDTable":"ab"}`, `"splithttpSettings":{"SESSIONidtable":"ab"}`, `"XHTTPsettings":{"extra":{"sessionIDTable":"ab"}}`,
	} {
		found := Inbound(json.RawMessage(`{"protocol":"vless","streamSettings":{`+settings+`}}`), first)
		if len(found) != 1 || !strings.Contains(found[0].Text, "sessionIDTable") {
			t.Errorf("%s: %+v", settings, found)
		}
	}
}
