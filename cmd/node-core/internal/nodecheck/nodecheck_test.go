package nodecheck

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/coreclient/wire"
	"nodeagent/xray/versions"
)

// pieces are inbounds, outbounds and MTProto inbounds; every second one is wrong.
var (
	inbounds = []string{
		`{"tag":"i-1","port":1,"protocol":"vless"}`, `{"tag":"i-2","port":1,"protocol":"vless"}`,
		`{"tag":"i-3","port":3,"protocol":"trojan"}`, `{"tag":"i-4","port":4,"protocol":"vles"}`,
		`{"tag":"i-5","port":5,"protocol":"vmess"}`, `{"tag":"i-6","port":6,"protocol":"vless","listn":"x"}`,
		`{"tag":"i-7","port":7,"protocol":"socks","settings":{"auth":"password"}}`, `{"tag":"i-8","port":8,"protocol":"vless","settings":{"clients":[{"id":"no"}]}}`,
		`{"tag":"i-9","port":9,"protocol":"http"}`, `{"port":10,"protocol":"vless"}`,
	}
	outbounds = []string{
		`{"tag":"direct","protocol":"freedom"}`, `{"tag":"typo","protocol":"fredom"}`,
		`{"tag":"o","protocol":"freedom","proxySettings":{"tag":"direct"}}`, `{"tag":"p","protocol":"freedom","proxySettings":{"tag":"none"}}`,
	}
	telegram = []string{
		`{"nodeProtocolId":1,"tag":"m-1","port":20,"modes":{"tls":true},"clients":[]}`, `{"nodeProtocolId":2,"tag":"m-2","port":20,"modes":{"tls":true},"clients":[]}`,
		`{"nodeProtocolId":3,"tag":"m-3","port":23,"modes":{"tls":true},"clients":[]}`, `{"nodeProtocolId":4,"tag":"m-4","port":24,"modes":{},"clients":[]}`,
	}
)

type document struct{ in, out, mt []string }

func (d document) config() wire.NodeConfig {
	var config wire.NodeConfig
	config.Services.Xray = json.RawMessage(fmt.Sprintf(`{"inbounds":[%s],"outbounds":[%s]}`, strings.Join(d.in, ","), strings.Join(d.out, ",")))
	config.Services.MTProto = json.RawMessage(fmt.Sprintf(`{"inbounds":[%s]}`, strings.Join(d.mt, ",")))
	return config
}

func some(t *rapid.T, of []string, name string) (chosen []string) {
	for i, piece := range of {
		if rapid.Bool().Draw(t, fmt.Sprintf("%s %d", name, i)) {
			chosen = append(chosen, piece)
		}
	}
	return chosen
}

// Whatever is wrong already, a removal of a part that no other one names adds nothing, and an
// added part that is wrong is refused, and is the only one.
func TestOnlyTheChangeCounts(t *testing.T) {
	now := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		d := document{in: some(t, inbounds, "inbound"), out: some(t, outbounds, "outbound"), mt: some(t, telegram, "mtproto")}
		less := document{in: some(t, d.in, "kept inbound"), out: d.out, mt: some(t, d.mt, "kept mtproto")}
		if found := Added(d.config(), less.config(), versions.Version{}, now); len(found.Refused) > 0 {
			t.Errorf("a removal is refused: %v", found.Err())
		}
		if found := Added(d.config(), d.config(), versions.Version{}, now); len(found.Refused)+len(found.Warnings) > 0 {
			t.Errorf("no change adds %+v", found)
		}
		more := d
		more.out = append(slices.Clone(d.out), `{"tag":"new","protocol":"freedom","x":1}`)
		if found := Added(d.config(), more.config(), versions.Version{}, now); len(d.out) > 0 && (len(found.Refused) != 1 || found.Refused[0].Tag != "new") {
			t.Errorf("the new outbound adds %v", found.Err())
		}
	})
}

// Of each part one fault is told, without those that the host decides.
func TestOf(t *testing.T) {
	for name, c := range map[string]struct {
		document document
		refused  []string
	}{
		"nothing":           {document{in: []string{inbounds[0]}, out: []string{outbounds[0]}, mt: []string{telegram[0]}}, nil},
		"every kind":        {document{in: inbounds, out: outbounds, mt: telegram}, []string{"client i-8", "inbound ", "inbound i-2", "inbound i-4", "inbound i-6", "mtproto m-2", "mtproto m-4", "outbound p", "outbound typo"}},
		"a missing file":    {document{in: []string{`{"tag":"i-1","port":1,"protocol":"vless","streamSettings":{"security":"tls","tlsSettings":{"certificates":[{"certificateFile":"/nonexistent/c","keyFile":"/nonexistent/k"}]}}}`}, out: outbounds[:1]}, nil},
		"an open proxy":     {document{in: []string{`{"tag":"i-1","port":1,"protocol":"socks","settings":{"accounts":[{"user":"u","pass":"p"}]}}`}, out: outbounds[:1]}, []string{"inbound i-1"}},
		"no service at all": {document{in: []string{`7`}}, []string{"inbound "}},
	} {
		found := Of(c.document.config(), versions.Version{}, time.Now())
		var refused []string
		for _, f := range found.Refused {
			refused = append(refused, fmt.Sprintf("%s %s", f.Kind, f.Tag))
		}
		slices.Sort(refused)
		if !slices.Equal(refused, c.refused) {
			t.Errorf("%s: refused are %q, want %q", name, refused, c.refused)
		}
	}
}
