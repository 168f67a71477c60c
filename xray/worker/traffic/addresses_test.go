package traffic

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"nodeagent/internal/counters"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// walk looks at every user. addressTable.find must return the same user.
func walk(users map[*user]bool, address netip.Addr) (found *user) {
	narrowest := -1
	for u := range users {
		for _, prefix := range u.client.Addresses {
			narrower := prefix.Bits() > narrowest || prefix.Bits() == narrowest && u.client.Email < found.client.Email
			if narrower && prefix.Contains(address) {
				found, narrowest = u, prefix.Bits()
			}
		}
	}
	return found
}

// addressesOf draws few addresses that are near each other, so that prefixes overlap.
func addressesOf(base netip.Addr) *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		bytes := base.AsSlice()
		bytes[len(bytes)-2] = rapid.ByteRange(0, 2).Draw(t, "last but one")
		bytes[len(bytes)-1] = rapid.SampledFrom([]byte{0, 1, 2, 127, 128, 255}).Draw(t, "last")
		address, _ := netip.AddrFromSlice(bytes)
		return address
	})
}

// After any additions and removals, the table finds the user that a walk over all users finds:
// with prefixes inside other prefixes, the same prefix twice, and prefixes with host bits.
func TestAddressTableFindsWhatAWalkFinds(t *testing.T) {
	address := rapid.OneOf(
		addressesOf(netip.MustParseAddr("10.0.0.0")), addressesOf(netip.MustParseAddr("fd00::")),
		addressesOf(netip.MustParseAddr("::ffff:10.0.0.0")),
	)
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := address.Draw(t, "address")
		bits := rapid.OneOf(rapid.IntRange(a.BitLen()-12, a.BitLen()), rapid.SampledFrom([]int{0, 8, a.BitLen()})).Draw(t, "bits")
		return netip.PrefixFrom(a, bits)
	})
	rapid.Check(t, func(t *rapid.T) {
		var table addressTable
		present := map[*user]bool{}
		var users []*user
		for i := range rapid.IntRange(1, 8).Draw(t, "users") {
			users = append(users, &user{client: clientNames{
				Email:     fmt.Sprintf("%c", 'h'-i),
				Addresses: rapid.SliceOfN(prefix, 0, 4).Draw(t, "prefixes"),
			}})
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			u := rapid.SampledFrom(users).Draw(t, "user")
			if rapid.Bool().Draw(t, "comes") {
				table.add(u)
				present[u] = true
			} else {
				table.remove(u)
				delete(present, u)
			}
			a := address.Draw(t, "looked up")
			if got, want := table.find(a), walk(present, a); got != want {
				t.Fatalf("%s: found %+v, want %+v", a, got, want)
			}
		}
		for _, u := range users {
			table.remove(u)
		}
		if n := table.prefixes.Size(); n != 0 {
			t.Fatalf("%d prefixes are left", n)
		}
	})
}

func slotsOf(n int) []*counters.Slot {
	slots := make([]*counters.Slot, n)
	for i := range slots {
		slots[i] = new(counters.Slot)
	}
	return slots
}

// The registry keeps the tables up to date: a peer is found in its own tunnel until it is
// removed, and afterwards another peer of the same network is found.
func TestLookupAddress(t *testing.T) {
	r := NewRegistry(func(ipc.Message) {})
	peer := func(email string, prefixes ...string) state.Client {
		c := state.Client{Email: email, Account: []byte(email)}
		for _, text := range prefixes {
			c.Addresses = append(c.Addresses, netip.MustParsePrefix(text))
		}
		return c
	}
	find := func(inbound, address, want string) {
		t.Helper()
		u, unknown := r.lookupAddress(inbound, netip.MustParseAddr(address))
		got := ""
		if u != nil {
			got = u.client.Email
		}
		if got != want || unknown != (want == "") {
			t.Errorf("%s in %s: found %q, unknown %v, want %q", address, inbound, got, unknown, want)
		}
	}
	wg := state.Inbound{Tag: "wg-1", Protocol: "wireguard"}
	find("wg-1", "10.0.0.2", "")
	alice, bob, net := peer("alice", "10.0.0.2/32"), peer("bob", "10.0.0.2/32"), peer("net", "10.0.0.0/24")
	pending := r.Announce(wg, []state.Client{alice, bob, net}, slotsOf(3))
	find("wg-1", "10.0.0.2", "alice")
	find("wg-1", "10.0.0.3", "net")
	find("wg-2", "10.0.0.2", "")
	r.Remove([]string{"alice"})
	find("wg-1", "10.0.0.2", "bob")
	moved := peer("bob", "10.0.0.9/32")
	moved.Account = []byte("another key")
	r.Put("wg-1", []state.Client{moved}, slotsOf(1))
	find("wg-1", "10.0.0.2", "net")
	find("wg-1", "10.0.0.9", "bob")
	pending.Undo()
	find("wg-1", "10.0.0.9", "")
}

// BenchmarkLookupAddress finds one of ten thousand peers, by the table and by a walk.
func BenchmarkLookupAddress(b *testing.B) {
	var table addressTable
	present := map[*user]bool{}
	var addresses []netip.Addr
	for i := range 10_000 {
		var bytes [4]byte
		binary.BigEndian.PutUint32(bytes[:], 10<<24+uint32(i))
		address := netip.AddrFrom4(bytes)
		u := &user{client: clientNames{Email: fmt.Sprint(i), Addresses: []netip.Prefix{netip.PrefixFrom(address, 32)}}}
		table.add(u)
		present[u] = true
		addresses = append(addresses, address)
	}
	for name, find := range map[string]func(netip.Addr) *user{
		"table": table.find,
		"walk":  func(address netip.Addr) *user { return walk(present, address) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if find(addresses[i%len(addresses)]) == nil {
					b.Fatal("nobody was found")
				}
			}
		})
	}
}
