package telemt

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"nodeagent/telemt/api"
	"nodeagent/telemt/service"
)

// A session that begins and ends between two readings is reported with its address.
func TestShortVisitsHaveAddresses(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"))))
		r.engine.Collect(t.Context())
		for range 2 {
			conn := r.dial(port, "alice")
			r.exchange(conn, 10, 10)
			_ = conn.Close()
		}
		r.eventually("the visit is reported", func() bool {
			return slices.Contains([]string{"+127.0.0.1 -127.0.0.1", "+127.0.0.1 -127.0.0.1 +127.0.0.1 -127.0.0.1"}, r.presenceOf(slot(1, "alice")))
		})
	})
}

// Of several recent addresses, those that were not reported are the visitor's. Where all were,
// none is guessed.
func TestWhichAddressVisited(t *testing.T) {
	in := service.Inbound{Tag: "m", Clients: []service.Client{{ID: "alice", Slot: 7}}}
	alice := in.UserName(in.Clients[0])
	first, second := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	var got []netip.Addr
	tr := newTraffic(Deps{
		Count:       func(uint32, uint64, uint64) {},
		SlotsClosed: func([]uint32) {},
		Presence: func(p Presence) {
			if p.Online {
				got = append(got, p.IP)
			}
		},
	})
	tr.setClients(in)
	now, moved := time.Now(), uint64(0)
	visit := func(recent ...netip.Addr) []netip.Addr {
		got = nil
		moved++
		now = now.Add(5 * time.Second)
		tr.add(api.Sample{At: now, Uptime: time.Duration(moved) * 5 * time.Second, Users: map[string]api.Octets{alice: {Up: moved}}})
		if !tr.hasShortVisits(nil) {
			t.Error("a visit was not noticed")
		}
		tr.setRecent(map[string]api.User{alice: {Recent: recent}})
		tr.updatePresence(nil, now)
		return got
	}
	for i, c := range []struct{ recent, want []netip.Addr }{
		{[]netip.Addr{first}, []netip.Addr{first}},
		{[]netip.Addr{first}, []netip.Addr{first}},
		{[]netip.Addr{first, second}, []netip.Addr{second}},
		{[]netip.Addr{first, second}, []netip.Addr{{}}},
		{nil, []netip.Addr{{}}},
	} {
		if got := visit(c.recent...); !slices.Equal(got, c.want) {
			t.Errorf("visit %d: %v, want %v", i, got, c.want)
		}
	}
}
