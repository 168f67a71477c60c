package xray

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// What listens on UDP does not collide with what listens on TCP.
func TestBindings(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   []string
	}{
		"raw":                  {`{"port":443}`, []string{"0.0.0.0:443/tcp"}},
		"an address, a range":  {`{"listen":"[::1]","port":"443-444"}`, []string{"[::1]:443/tcp", "[::1]:444/tcp"}},
		"a unix socket":        {`{"listen":"/run//x.sock,0666"}`, []string{"unix:/run/x.sock"}},
		"an abstract socket":   {`{"listen":"@x,y"}`, []string{"unix:@x,y"}},
		"mKCP":                 {`{"port":443,"streamSettings":{"network":"kcp"}}`, []string{"0.0.0.0:443/udp"}},
		"XHTTP":                {`{"port":443,"streamSettings":{"network":"xhttp","security":"tls","tlsSettings":{"alpn":["h3","h2"]}}}`, []string{"0.0.0.0:443/tcp"}},
		"XHTTP over QUIC":      {`{"port":443,"streamSettings":{"network":"xhttp","security":"tls","tlsSettings":{"alpn":["h3"]}}}`, []string{"0.0.0.0:443/udp"}},
		"its other name":       {`{"port":443,"streamSettings":{"network":"splithttp","security":"tls","tlsSettings":{"alpn":"h3"}}}`, []string{"0.0.0.0:443/udp"}},
		"QUIC has to have TLS": {`{"port":443,"streamSettings":{"network":"xhttp","tlsSettings":{"alpn":["h3"]}}}`, []string{"0.0.0.0:443/tcp"}},
	} {
		t.Run(name, func(t *testing.T) {
			bindings, err := Inbound{Tag: "in-1", Protocol: "vless", Config: json.RawMessage(c.config)}.Bindings()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range bindings {
				got = append(got, b.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Where the settings choose the networks, null is no choice, as it is for Xray.
func TestChosenNetworks(t *testing.T) {
	for network, want := range map[string]string{
		`null`: "0.0.0.0:443/tcp", `"UDP"`: "0.0.0.0:443/udp", `["tcp","udp"]`: "0.0.0.0:443/tcp 0.0.0.0:443/udp", `"tcp,udp"`: "0.0.0.0:443/tcp 0.0.0.0:443/udp", `"tcp, udp"`: "0.0.0.0:443/tcp", `[]`: "",
	} {
		for _, protocol := range []string{"shadowsocks", "dokodemo-door", "tunnel"} {
			bindings, err := Inbound{Tag: "in-1", Protocol: protocol, Config: json.RawMessage(`{"port":443,"settings":{"network":` + network + `}}`)}.Bindings()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range bindings {
				got = append(got, b.String())
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s on %s: got %v, want %s", protocol, network, got, want)
			}
		}
	}
}

// A peer's private key, which panels send, is kept nowhere.
func TestPrivateKeysOfPeersAreNotKept(t *testing.T) {
	peer := func(more string) State {
		t.Helper()
		s, err := parseText(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"wireguard","settings":{"peers":[{"email":"a","publicKey":"b"` + more + `}]}}]}`)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	without := peer("")
	for _, name := range []string{"privateKey", "PrivateKey"} {
		with := peer(`,"` + name + `":"hush-hush"`)
		if account := string(with.Inbounds["in-1"].Clients[0].Account); strings.Contains(account, "hush") || strings.Contains(string(with.Inbounds["in-1"].Config), "hush") {
			t.Errorf("%s: account %s", name, account)
		}
		if ops := Diff(without, with); len(ops) > 0 {
			t.Errorf("%s makes another client: %s", name, text(ops))
		}
	}
}

// One key is one peer: with two of them nobody knows whose a packet is.
func TestPeersOfOneKey(t *testing.T) {
	const base64Key, hexKey = "AQIDBAUGBwgBAgMEBQYHCAECAwQFBgcIAQIDBAUGBwg=", "0102030405060708010203040506070801020304050607080102030405060708"
	parse := func(first, second string) (State, error) {
		return Parse(json.RawMessage(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"wireguard","settings":{"secretKey":"`+base64Key+`","peers":[
			{"email":"a","publicKey":"`+first+`","allowedIPs":["10.0.0.2/32"]},{"email":"a","publicKey":"`+second+`"}]}}]}`), func(string) bool { return true })
	}
	twice, err := parse(base64Key, hexKey)
	if err != nil {
		t.Fatal(err) // it may run already
	}
	if err := checkPeers(State{}, twice); err == nil {
		t.Error("one key for two peers was taken")
	}
	if err := checkPeers(twice, twice); err != nil {
		t.Errorf("what runs is refused: %v", err)
	}
	s, err := parse(base64Key, "another")
	if err != nil {
		t.Fatal(err)
	}
	all := s.Inbounds["in-1"].Clients
	if len(all) != 2 || all[0].Key == all[1].Key {
		t.Fatalf("clients %+v", all)
	}
	for _, c := range all {
		if want := map[string]int{"a": 1, "another": 2}[c.Key]; len(c.Addresses) != want { // Xray lets one without networks have all
			t.Errorf("%s has the networks %v", c.Key, c.Addresses)
		}
	}
}

// SOCKS' UDP on another's port is refused where it is new.
func TestPortOfSOCKS(t *testing.T) {
	s, err := Parse(json.RawMessage(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"socks","settings":{"udp":true}},{"tag":"in-2","port":1,"protocol":"hysteria","settings":{"version":2}}]}`), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPorts(s, true); err == nil {
		t.Error("two inbounds on one port were taken")
	}
}

// Without settings there is nobody to take out.
func TestWithoutSettings(t *testing.T) {
	in := Inbound{Tag: "in-1", Protocol: "socks", Config: json.RawMessage(`{"port":1,"protocol":"socks","tag":"in-1"}`)}
	out, err := in.Without(func(Client) bool { return true })
	if err != nil || string(out.Config) != string(in.Config) {
		t.Errorf("got %s, %v", out.Config, err)
	}
}

// An account that becomes nobody's is told to the worker.
func TestAccountBecomesNobodys(t *testing.T) {
	parse := func(known string) State {
		s, err := Parse(json.RawMessage(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"socks","settings":{"accounts":[
			{"email":"x","user":"u1","pass":"p"},{"email":"x","user":"u2","pass":"q"}]}}]}`), func(key string) bool { return key == "x" || key == known })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ops := Diff(parse("u2"), parse(""))
	if len(ops) != 1 || ops[0].Kind != OpReplaceInbound || !slices.Equal(ops[0].Inbound.Unattributed, []string{"u2"}) {
		t.Errorf("operations %+v", ops)
	}
}
