package check

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// An inbound that Xray builds and then does not serve is refused, unless it already runs.
func TestStreamsAreChecked(t *testing.T) {
	now := time.Now()
	certificate, key := xraytest.CertificatePair(t, now.Add(-time.Hour), now.Add(time.Hour))
	tls := fmt.Sprintf(`"security":"TLS","tlsSettings":{"certificates":[{"certificate":%s,"key":%s}]}`, lines(certificate), lines(key))
	inbound := func(protocol, settings, stream string) string {
		return fmt.Sprintf(`{"inbounds":[{"tag":"in-1","port":1,"protocol":%q,"settings":{%s},"streamSettings":{%s}}]}`, protocol, settings, stream)
	}
	vision := func(settings, stream string) string {
		return inbound("vless", settings+`,"clients":[{"email":"a","id":"`+xraytest.UUIDA+`","flow":"xtls-rprx-vision"}]`, stream)
	}
	salamander := func(password string) string {
		return fmt.Sprintf(`"finalmask":{"udp":[{"type":"Salamander","settings":{"password":%q}}]}`, password)
	}
	const decryptionNone, encrypted = `"decryption":"none"`, `"decryption":"mlkem768x25519plus.native.600s.x"`
	for name, c := range map[string]struct{ config, says string }{
		"hysteria":                        {inbound("hysteria", ``, `"network":"hysteria",`+tls), ""},
		"hysteria without TLS":            {inbound("hysteria", ``, `"network":"Hysteria"`), "hysteria listens only with TLS"},
		"hysteria over TCP":               {inbound("hysteria", ``, tls), `streamSettings.network is ""`},
		"vless over hysteria":             {inbound("vless", ``, `"network":"hysteria","hysteriaSettings":{"version":2,"auth":"x"},`+tls), ""},
		"vless over an open hysteria":     {inbound("vless", ``, `"network":"hysteria",`+tls), "hysteriaSettings.auth is empty"},
		"salamander":                      {inbound("hysteria", ``, `"network":"hysteria",`+salamander("1234")+","+tls), ""},
		"a short salamander":              {inbound("hysteria", ``, `"network":"hysteria",`+salamander("123")+","+tls), "finalmask.udp[0]"},
		"a short salamander of mKCP":      {inbound("vless", ``, `"network":"mkcp",`+salamander("")), "finalmask.udp[0]"},
		"a short salamander of no use":    {inbound("vless", ``, salamander("123")), ""},
		"an outbound's salamander":        {`{"outbounds":[{"tag":"out","streamSettings":{"network":"kcp",` + salamander("123") + `}}]}`, `outbound "out": streamSettings.finalmask`},
		"an outbound's that is not used":  {`{"outbounds":[{"tag":"out","streamSettings":{` + salamander("123") + `}}]}`, ""},
		"vision over TLS":                 {vision(decryptionNone, tls), ""},
		"vision over REALITY":             {vision(decryptionNone, `"network":"TCP","security":"REALITY"`), ""},
		"vision in the open":              {vision(decryptionNone, `"network":"raw"`), `client "a": the flow xtls-rprx-vision cannot work: it needs TLS`},
		"vision over WebSocket":           {vision(decryptionNone, `"network":"ws",`+tls), "it does not work over ws"},
		"vision over XHTTP":               {vision(decryptionNone, `"network":"xhttp","security":"reality"`), "it does not work over xhttp"},
		"vision with encryption":          {vision(encrypted, `"network":"ws"`), ""},
		"vision with an HTTP header":      {vision(decryptionNone, `"rawSettings":{"header":{"type":"http"}},`+tls), "HTTP header"},
		"vision with no header":           {vision(decryptionNone, `"tcpSettings":{"header":{"type":"none"}},`+tls), ""},
		"a reverse client with vision":    {inbound("vless", `"clients":[{"id":"`+xraytest.UUIDA+`","flow":"xtls-rprx-vision","reverse":{"tag":"r"}}]`, `"network":"ws"`), ""},
		"the inbound's flow":              {inbound("vless", `"flow":"xtls-rprx-vision"`, `"network":"ws"`), "settings.flow cannot be"},
		"the inbound's flow over REALITY": {inbound("vless", `"flow":"xtls-rprx-vision"`, `"security":"reality"`), ""},
		"vmess knows no flow":             {inbound("vmess", `"clients":[{"id":"`+xraytest.UUIDA+`","flow":"xtls-rprx-vision"}]`, `"network":"ws"`), `has no member "flow"`},
	} {
		t.Run(name, func(t *testing.T) { isChecked(t, c.config, c.says) })
	}
}

// A new client with Vision is checked on an inbound that runs, and so are running clients when
// the inbound loses the transport for Vision.
func TestVisionThatIsNew(t *testing.T) {
	parse := func(stream string, ids ...string) state.State {
		t.Helper()
		var clients []string
		for _, id := range ids {
			clients = append(clients, fmt.Sprintf(`{"email":%q,"id":%q,"flow":"xtls-rprx-vision"}`, id[:2], id))
		}
		s, err := xraytest.Parse(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"vless","settings":{"clients":[` + strings.Join(clients, ",") + `]},"streamSettings":{` + stream + `}}]}`)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const works, other = `"security":"reality"`, `"network":"ws"`
	if err := checkVision(parse(other, xraytest.UUIDA), parse(other, xraytest.UUIDA, xraytest.UUIDB)); err == nil || !strings.Contains(err.Error(), `"22"`) {
		t.Errorf("a new client: %v", err)
	}
	if err := checkVision(parse(works, xraytest.UUIDA), parse(other, xraytest.UUIDA)); err == nil {
		t.Error("another transport is accepted")
	}
	if err := checkVision(parse(other, xraytest.UUIDA, xraytest.UUIDB), parse(other, xraytest.UUIDA)); err != nil {
		t.Errorf("the removal of a client: %v", err)
	}
}
