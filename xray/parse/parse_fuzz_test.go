package parse_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// parseSeeds have every section of services.xray, and every member that the package reads.
var parseSeeds = []string{
	`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"settings":{"clients":[{"id":"` + xraytest.UUIDA + `"}]}}],"outbounds":[{"tag":"o"}],"routing":{}}`,
	// clients: by each key, with limits, and one UUID in its two spellings
	`{"inbounds":[{"tag":"v","nodeProtocolId":7,"protocolName":"x","protocol":"VLESS","listen":"::","port":"443","settings":{"decryption":"none","clients":[
		{"id":"` + xraytest.UUIDA + `","email":"alice@x","level":1,"flow":"xtls-rprx-vision","limitIps":2,"limitConnections":3,"rateUpBitsPerSecond":8000,"rateDownBitsPerSecond":9000},
		{"id":"22222222222242228222222222222222","email":"b"}]}},
		{"tag":"t-2","protocol":"trojan","port":444,"settings":{"clients":[{"password":"p"}],"fallbacks":[{"dest":80}]}},
		{"tag":"s-3","protocol":"shadowsocks","port":445,"settings":{"method":"aes-256-gcm","network":"tcp,udp","clients":[{"password":"p","method":"aes-256-gcm"}]}},
		{"tag":"h-4","protocol":"hysteria","port":443,"settings":{"version":2,"clients":[{"auth":"a"}]}},
		{"tag":"m-5","protocol":"vmess","port":446,"settings":{"clients":[{"id":"` + xraytest.UUIDB + `","email":""}]}}]}`,
	// where they listen
	`{"inbounds":[{"tag":"in-1","port":"1-9,20"},{"tag":"in-2","port":"30-31, 33","listen":"localhost"},{"tag":"in-3","listen":"@abstract","port":0},{"tag":"in-4","listen":"/run/x,0666"},
		{"tag":"in-5","listen":"[::1]","port":5,"protocol":"dokodemo-door","settings":{"network":["tcp","udp"],"udp":true}},
		{"tag":"in-6","listen":"127.0.0.1","port":6,"streamSettings":{"network":"kcp"}},{"tag":"in-7","protocol":"wireguard","port":6},{"tag":"in-8","protocol":"tun"}]}`,
	// routing: users by name, list and expression, balancers
	`{"inbounds":[{"tag":"in-1","protocol":"vless","port":1,"settings":{"clients":[{"id":"` + xraytest.UUIDA + `","email":"alice@x"}]}}],
		"outbounds":[{"tag":"a-1","protocol":"freedom"},{"tag":"a-2","protocol":"blackhole"}],
		"routing":{"domainStrategy":"AsIs","balancers":[{"tag":"b","selector":["a-"],"fallbackTag":"a-1"}],"rules":[
		{"user":["alice@x"],"outboundTag":"a-1"},{"user":"alice@x,regexp:^b","outboundTag":"a-2"},{"ruleTag":"r","inboundTag":["in-1"],"balancerTag":"b"},{"user":["carol"],"outboundTag":"a-1"}]}}`,
	// what is Xray's own stays raw
	`{"outbounds":[{"tag":"o","protocol":"freedom","settings":{"z":1.50,"a":[1e400,-0,{"b":null}]}}],"dns":{"servers":["1.1.1.1",{"address":"localhost"}],"hosts":{"a":"1.2.3.4"}},
		"policy":{"levels":{"0":{"connIdle":300}},"system":{}},"observatory":{"subjectSelector":["o"],"probeUrl":"http://x"},"burstObservatory":{"subjectSelector":["o"],"pingConfig":{"interval":"1m"}}}`,
	`{"inbounds":null,"outbounds":null,"routing":null,"dns":null,"policy":null,"observatory":null,"burstObservatory":null}`,
	`{"inbounds":[null]}`, `{"outbounds":[null]}`, `{"routing":[]}`, `{"dns":1}`, `{"inbounds":[{"tag":"in-1","port":1,"settings":null,"protocol":"vless"}]}`,
	`{"inbounds":[{"tag":"in-1","port":1,"protocol":"vless","settings":{"clients":[null]}}]}`, `{"inbounds":[{"tag":"in-99999999999999999999","port":1}]}`, `null`, ``,
}

// A document is refused with a fault, or read into a state: the same state each time, which
// the operations of Diff lead to, also after they were encoded and decoded.
func FuzzParse(f *testing.F) {
	for _, seed := range parseSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, config string) {
		desired, err := xraytest.Parse(config, xraytest.UUIDA)
		if err != nil {
			if _, ok := errors.AsType[*fault.Fault](err); !ok || err.Error() == "" {
				t.Errorf("refused with %#v, want a fault that says why", err)
			}
			return
		}
		again, err := xraytest.Parse(config, xraytest.UUIDA)
		if err != nil || len(state.Diff(desired, again)) != 0 || !desired.Base.Equal(again.Base) {
			t.Errorf("the same text gives two states (%v): %s", err, xraytest.OperationsText(state.Diff(desired, again)))
		}
		empty := state.State{Base: desired.Base}
		ops := state.Diff(empty, desired)
		if rest := state.Diff(xraytest.After(empty, sent(t, ops)), desired); len(rest) != 0 {
			t.Errorf("after %s there is still to do %s", xraytest.OperationsText(ops), xraytest.OperationsText(rest))
		}
		checkClients(t, desired)
	})
}

// sent returns the operations as the worker decodes them.
func sent(t *testing.T, ops []state.Operation) (got []state.Operation) {
	t.Helper()
	raw, err := json.Marshal(ops)
	if err == nil {
		err = json.Unmarshal(raw, &got)
	}
	if err != nil {
		t.Fatalf("operations can't be sent: %v", err)
	}
	return got
}

func checkClients(t *testing.T, state state.State) {
	t.Helper()
	for tag, in := range state.Inbounds {
		if tag == "" || tag != in.Tag {
			t.Errorf("inbound %q is kept as %q", in.Tag, tag)
		}
		for i, c := range in.Clients {
			if c.Key == "" || c.Email == "" || in.NodeProtocolID == 0 {
				t.Errorf("inbound %q: no usage can be assigned to client %+v", tag, c)
			}
			if c.Tied != (c.Key == xraytest.UUIDA) {
				t.Errorf("inbound %q: client %q is tied: %t", tag, c.Key, c.Tied)
			}
			if i > 0 && in.Clients[i-1].Email >= c.Email {
				t.Errorf("inbound %q: clients %d and %d are not in order", tag, i-1, i)
			}
			if !json.Valid(c.Account) || bytes.Contains(c.Account, []byte("limitIps")) {
				t.Errorf("inbound %q: account %s", tag, c.Account)
			}
		}
	}
}
