//go:build !race

// Stock clients of XHTTP have races of their own (xray-core,
// transport/internet/splithttp/client.go:195 and dialer.go:602). make unit runs these tests by
// themselves.

package xray_test

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"nodeagent/internal/namespace"
)

// Whatever carries a client's streams: they end with it.
func TestVanishedPeersOfEveryCarrier(t *testing.T) {
	if !namespace.Beside(t, "true") {
		return
	}
	carriers := map[string]string{
		"raw":         `"network":"raw"`,
		"websocket":   `"network":"ws","wsSettings":{"path":"/p"}`,
		"httpupgrade": `"network":"httpupgrade","httpupgradeSettings":{"path":"/p"}`,
		"grpc":        `"network":"grpc","grpcSettings":{"serviceName":"s"}`,
		"xhttp":       `"network":"xhttp","xhttpSettings":{"path":"/p","mode":"packet-up"}`,
		"xhttp one":   `"network":"xhttp","xhttpSettings":{"path":"/p","mode":"stream-one"}`,
	}
	var inbounds []json.RawMessage
	var names []string
	ports := map[string]int{}
	online := &presences{}
	r := newRigThatTells(t, online.heard)
	for name, stream := range carriers {
		ports[name] = freePort(t)
		names = append(names, name)
		inbounds = append(inbounds, fmt.Appendf(nil, `{"tag":%q,"nodeProtocolId":1,"listen":"0.0.0.0","port":%d,"protocol":"vless","settings":{"decryption":"none",
			"clients":[{"id":%q}]},"streamSettings":{%s,%s}}`, name, ports[name], aliceID, stream, shortKeepAlive))
	}
	service, err := json.Marshal(map[string]any{"inbounds": inbounds})
	if err != nil {
		t.Fatal(err)
	}
	s := r.parsed(string(service))
	slices.Sort(names)
	for i, name := range names {
		s.Inbounds[name].Clients[0].Slot = uint32(1 + i)
	}
	r.apply(s)
	phone := namespace.NewPhone(t, "10.77.0.2/24")
	for i, name := range names {
		relay := phone.Relay("10.77.0.2", net.JoinHostPort(namespace.HostIP, fmt.Sprint(ports[name])))
		host, port, _ := net.SplitHostPort(relay)
		for _, mux := range []string{"", `,"mux":{"enabled":true}`} {
			conn, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"vless","settings":{"vnext":[{"address":%q,"port":%s,
				"users":[{"id":%q,"encryption":"none"}]}]},"streamSettings":{%s}%s}`, host, port, aliceID, carriers[name], mux))
			if err == nil {
				err = use(conn)
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		r.eventually(name+" is online", func() bool { return online.is(uint32(1+i), "10.77.0.2") })
	}
	phone.Leave("10.77.0.2/24")
	for i, name := range names {
		r.within(time.Minute, name+" is offline", func() bool { return !online.is(uint32(1+i), "10.77.0.2") })
	}
}
