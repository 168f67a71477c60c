package ipc

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/internal/grant"
	"nodeagent/xray/state"
)

func drawUsers(t *rapid.T) []state.Client {
	users := make([]state.Client, rapid.SampledFrom([]int{compactFrom - 1, compactFrom, compactFrom + 7}).Draw(t, "users"))
	number := rapid.Int64()
	for i := range 5 { // the others are empty
		c := &users[rapid.IntRange(0, len(users)-1).Draw(t, "at")]
		*c = state.Client{
			Email: rapid.String().Draw(t, "email"), User: rapid.String().Draw(t, "user"), Group: rapid.String().Draw(t, "group"),
			Slot: rapid.Uint32().Draw(t, "slot"), Account: json.RawMessage(`{"id":"` + string(rune('a'+i)) + `"}`),
		}
		if rapid.Bool().Draw(t, "limited") {
			c.Limits = state.Limits{IPs: int(number.Draw(t, "ips")), Connections: 4, RateUpBitsPerSecond: number.Draw(t, "up"), RateDownBitsPerSecond: 1}
		}
		if rapid.Bool().Draw(t, "granted") {
			c.Grant = &grant.Grant{ID: rapid.String().Draw(t, "id"), Bytes: number.Draw(t, "bytes"), ExpiresAt: time.Unix(rapid.Int64Range(0, 1<<35).Draw(t, "expires"), 5).UTC(), Slot: 7, Until: number.Draw(t, "until")}
		}
		if rapid.Bool().Draw(t, "in a tunnel") {
			c.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.3/32"), netip.MustParsePrefix("fd00::/64")}
		}
	}
	return users
}

func sent(t *rapid.T, compact bool, r Request) []byte {
	conn := &textConn{}
	frames := NewFrameConn(conn)
	frames.Compact = compact
	if err := frames.Write(r); err != nil {
		t.Fatal(err)
	}
	body, err := NewFrameConn(&textConn{in: &conn.out}).ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// The users of an operation arrive in a compact frame as they do as JSON; many of them go so to a worker
// of the same build. A damaged frame is an error or other users, and nothing worse.
func TestUsersArriveInCompactFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		users := drawUsers(t)
		r := Request{ID: 5, Operation: &state.Operation{Kind: state.OpReplaceInbound, Tag: "in", Inbound: &state.Inbound{Tag: "in", Config: json.RawMessage(`{"port":1}`)}, Users: users}}
		text, body := sent(t, false, r), sent(t, true, r)
		if compact := body[0] == compactFrame; compact != (len(users) >= compactFrom) || text[0] == compactFrame {
			t.Fatalf("a frame of %d users is compact: %v", len(users), compact)
		}
		if len(r.Operation.Users) != len(users) {
			t.Fatal("the sender's operation has lost its users")
		}
		var want, got Request
		if err := DecodeFrame(text, &want); err != nil {
			t.Fatal(err)
		}
		if err := DecodeFrame(body, &got); err != nil {
			t.Fatal(err)
		}
		for i := range want.Operation.Users { // nothing and null are both no account
			for _, c := range []*state.Client{&want.Operation.Users[i], &got.Operation.Users[i]} {
				if len(c.Account) == 0 || string(c.Account) == "null" {
					c.Account = nil
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatal("another request arrived than as JSON")
		}
		damaged := bytes.Clone(body)
		at := rapid.IntRange(0, len(damaged)-1).Draw(t, "at")
		damaged[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "turned"))
		_ = DecodeFrame(damaged, &Request{})
		if err := DecodeFrame(body[:at], &Request{}); err == nil {
			t.Fatalf("a frame that ends after %d of %d bytes was read", at, len(body))
		}
	})
}
