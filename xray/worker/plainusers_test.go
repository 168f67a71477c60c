package worker

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/infra/conf"
	"pgregory.net/rapid"

	"nodeagent/xray/state"
)

// plainDetours are inbounds whose clients may be plain.
var plainDetours = map[string]string{
	"vless":    `{"port":1,"protocol":"vless","settings":{"clients":[],"decryption":"none"}}`,
	"VLESS":    `{"port":1,"protocol":"VLESS","settings":{"clients":[],"decryption":"none"}}`,
	"flow":     `{"port":1,"protocol":"vless","settings":{"clients":[],"decryption":"none","FLOW":"xtls-rprx-vision"}}`,
	"testseed": `{"port":1,"protocol":"vless","settings":{"clients":[],"decryption":"none","testseed":[1,2,3,4]}}`,
	"vmess":    `{"port":1,"protocol":"vmess","settings":{"clients":[]}}`,
	"trojan":   `{"port":1,"protocol":"trojan","settings":{"clients":[]}}`,
	"hysteria": `{"port":1,"protocol":"hysteria","settings":{"version":2,"clients":[]}}`,
}

func plainDetour(t rapid.TB, name string) conf.InboundDetourConfig {
	var detour conf.InboundDetourConfig
	if err := json.Unmarshal([]byte(plainDetours[name]), &detour); err != nil {
		t.Fatal(err)
	}
	return detour
}

// Whatever a client is: the user that is made of it without xray-core's configuration code is the one that
// xray-core makes, or none.
func TestPlainUsersAreXrays(t *testing.T) {
	plain := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"vless", "VLESS", "flow", "testseed", "vmess", "trojan", "hysteria"}).Draw(t, "inbound")
		detour := plainDetour(t, name)
		members := []string{`"email":"a"`}
		for _, m := range []string{
			`"id":"7c1a1d9e-31a8-4b63-9a4b-6d1b5f3f2a10"`, `"password":"secret"`, `"auth":"7c1a1d9e-31a8-4b63-9a4b-6d1b5f3f2a10"`, `"id":"7C1A1D9E31A84B639A4B6D1B5F3F2A10"`,
			`"id":"short"`, `"id":""`, `"id":"7c1a1d9e-31a8-4b63-9a4b-6d1b5f3f2a1x"`, `"password":"\u0041\"<>"`, `"password":"ю"`, `"password":""`, `"auth":"a b"`,
			`"flow":"xtls-rprx-vision"`, `"flow":""`, `"flow":"other"`, `"level":3`, `"email":"b"`, `"ID":"8c1a1d9e-31a8-4b63-9a4b-6d1b5f3f2a10"`, `"Flow":"xtls-rprx-vision"`,
			`"encryption":""`, `"seed":"x"`, `"security":"aes-128-gcm"`, `"reverse":{"tag":"r"}`,
		} {
			if rapid.IntRange(0, 5).Draw(t, m) == 0 {
				members = append(members, m)
			}
		}
		members = rapid.Permutation(members).Draw(t, "members")
		text := "{"
		for i, m := range members {
			if i > 0 {
				text += ","
			}
			text += m
		}
		users := []state.Client{{Email: "a", Account: json.RawMessage(text + "}")}}
		built, want := make([]*protocol.MemoryUser, 1), make([]*protocol.MemoryUser, 1)
		if !plainProtocolOf(detour).build(users, built) {
			return
		}
		plain[name]++
		shell, err := settingsWithoutUsers(detour)
		if err != nil {
			t.Fatal(err)
		}
		if err := buildSome("in", detour, shell, users, want); err != nil {
			t.Fatalf("xray-core refuses %s: %v", users[0].Account, err)
		}
		if !reflect.DeepEqual(built, want) {
			t.Fatalf("%s became %+v %+v, want %+v %+v", users[0].Account, built[0], built[0].Account, want[0], want[0].Account)
		}
	})
	if plain["flow"]+plain["testseed"] > 0 {
		t.Error("clients are plain where the settings say something about them")
	}
}

// The clients of Core are plain.
func TestCoresClientsArePlain(t *testing.T) {
	for name, client := range map[string]string{
		"vless":    `{"email":"a","flow":"xtls-rprx-vision","id":"7c1a1d9e-31a8-4b63-9a4b-6d1b5f3f2a10"}`,
		"vmess":    `{"email":"a","id":"7c1a1d9e-31a8-4b63-9a4b-6d1b5f3f2a10"}`,
		"trojan":   `{"email":"a","password":"secret"}`,
		"hysteria": `{"email":"a","auth":"secret"}`,
	} {
		users := []state.Client{{Email: "a", Account: json.RawMessage(client)}}
		if !plainProtocolOf(plainDetour(t, name)).build(users, make([]*protocol.MemoryUser, 1)) {
			t.Errorf("%s: %s is not plain", name, client)
		}
	}
}

// BenchmarkBuildUsers compares the processor time of a plain client with that of xray-core's own way.
func BenchmarkBuildUsers(b *testing.B) {
	var detour conf.InboundDetourConfig
	if err := json.Unmarshal([]byte(plainDetours["vless"]), &detour); err != nil {
		b.Fatal(err)
	}
	shell, err := settingsWithoutUsers(detour)
	if err != nil {
		b.Fatal(err)
	}
	users := make([]state.Client, builtTogether)
	for i := range users {
		email := fmt.Sprintf("client-%d", i)
		users[i] = state.Client{Email: email, Account: fmt.Appendf(nil, `{"email":%q,"id":"7c1a1d9e-31a8-4b63-9a4b-%012x"}`, email, i)}
	}
	built := make([]*protocol.MemoryUser, len(users))
	for _, c := range []struct {
		name  string
		build func() bool
	}{
		{"plain", func() bool { return plainProtocolOf(detour).build(users, built) }},
		{"xray", func() bool { return buildSome("in", detour, shell, users, built) == nil }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !c.build() {
					b.Fatal("they are not built")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(users)), "ns/client")
		})
	}
}
