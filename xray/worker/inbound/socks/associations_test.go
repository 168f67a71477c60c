package socks

import (
	"errors"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// desk has the associations of one inbound in a test.
type desk struct {
	*testing.T
	all  *Associations
	ends map[string]func()
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	return &desk{t, &Associations{all: map[udpSource]*udpClients{}}, map[string]func(){}}
}

// begin makes an association of an account, by a name of its own.
func (d *desk) begin(name, account, address string, number uint16) {
	d.Helper()
	end, err := d.all.begin("in", &Association{account: account, client: netip.MustParseAddr(address), port: number})
	if err != nil {
		d.Fatal(err)
	}
	d.ends[name] = end
}

// is says whose a port of the client's is; reader reads its datagrams from then on.
func (d *desk) is(what string, number uint16, want string, reader io.Closer) {
	d.Helper()
	got := ""
	if one := d.all.of("in", netip.AddrPortFrom(netip.MustParseAddr(client), number), func(*Association) bool { return true }, reader); one != nil {
		got = one.account
	}
	if got != want {
		d.Errorf("%s: port %d is %q's, want %q's", what, number, got, want)
	}
}

const client = "192.0.2.1"

// closing notes that it was closed.
type closing struct{ closed bool }

func (c *closing) Close() error { c.closed = true; return nil }

// Several clients of one address are told apart by their ports, as far as they can be.
func TestAssociationOfPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.is("nobody asked", 1, "", nil)
		d.begin("elsewhere", "elsewhere", "192.0.2.2", 0)
		d.is("nobody asked from here", 1, "", nil)
		d.begin("a", "alice", client, 0)
		d.begin("b", "bob", client, 0)
		d.is("both asked just now, in this order", 1, "alice", &closing{})
		d.is("both asked just now, in this order", 2, "bob", &closing{})
		d.is("it was hers", 1, "alice", &closing{})
		d.begin("c", "carol", client, 0)
		d.begin("d", "dave", client, 0)
		time.Sleep(askedNow)
		d.is("who asked last and has none", 3, "dave", &closing{})
		d.begin("e", "erin", client, 7)
		d.is("she named it", 7, "erin", &closing{})
		d.is("who has none yet", 4, "carol", &closing{})
		d.is("all have one", 5, "erin", &closing{})
		d.begin("f", "frank", client, 1)
		d.is("somebody reads it", 1, "alice", &closing{})
		if d.all.of("other", netip.AddrPortFrom(netip.MustParseAddr(client), 1), func(*Association) bool { return true }, nil) != nil {
			t.Error("another inbound's")
		}
	})
}

// A port rests for a while, and is anybody's then.
func TestPortsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, reader := newDesk(t), &closing{}
		rest := func(number uint16) { d.all.rest("in", netip.AddrPortFrom(netip.MustParseAddr(client), number), reader) }
		d.begin("a", "alice", client, 0)
		d.is("she has none", 1, "alice", reader)
		rest(1)
		d.begin("b", "bob", client, 2)
		d.is("he named another", 2, "bob", reader)
		d.is("it rests", 1, "alice", reader)
		rest(1)
		time.Sleep(portRest + time.Second)
		d.is("it rested for long", 1, "alice", reader) // she has none again
		rest(1)
		d.begin("c", "carol", client, 1)
		d.is("who names it", 1, "carol", reader)
		if c := d.all.all[udpSource{"in", netip.MustParseAddr(client)}]; len(c.ports) != 2 || c.live[0].ports != 0 || c.live[2].ports != 1 {
			t.Errorf("ports %v", c.ports)
		}
	})
}

// The sources of an association that ends go to another association of its account. No other account
// gets them for a while. An account without associations is forgotten.
func TestAssociationsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, first, second := newDesk(t), &closing{}, &closing{}
		d.begin("a1", "alice", client, 0)
		d.is("hers", 1, "alice", first)
		d.begin("a2", "alice", client, 0)
		d.ends["a1"]()
		if first.closed {
			t.Error("who reads was ended, though she may read by another right")
		}
		d.begin("b", "bob", client, 0)
		d.is("his", 2, "bob", second)
		d.ends["a2"]()
		if !first.closed {
			t.Error("who reads was not ended")
		}
		d.is("hers it was", 1, "", nil)
		time.Sleep(portRest + time.Second)
		d.is("a further one", 1, "bob", nil)
		d.ends["b"]()
		if !second.closed || len(d.all.all) != 0 {
			t.Errorf("left %v", d.all.all)
		}
	})
}

// Where a client's control connection comes from follows the association that has the port, so that the
// client can be asked after the association ended that had the port first.
func TestControlFollowsThePort(t *testing.T) {
	d, reader, source := newDesk(t), &closing{}, netip.MustParseAddrPort(client+":1")
	is := func(what, want string) {
		t.Helper()
		var wanted netip.AddrPort
		if want != "" {
			wanted = netip.MustParseAddrPort(want)
		}
		if got := d.all.control("in", source, reader); got != wanted {
			t.Errorf("%s: %v, want %v", what, got, wanted)
		}
	}
	begin := func(peer string) (end func()) {
		t.Helper()
		end, err := d.all.begin("in", &Association{account: "alice", client: source.Addr(), peer: netip.MustParseAddrPort(peer)})
		if err != nil {
			t.Fatal(err)
		}
		return end
	}
	is("nobody asked", "")
	endFirst := begin(client + ":1001")
	d.is("hers", 1, "alice", reader)
	is("by the first association", client+":1001")
	endSecond := begin(client + ":1002")
	is("the first association is there", client+":1001")
	endFirst()
	is("the first association has ended", client+":1002")
	endSecond()
	is("both have ended", "")
}

// There are so many of one address and no more, and they leave nothing.
func TestAssociationsAreBounded(t *testing.T) {
	a := &Associations{all: map[udpSource]*udpClients{}}
	begin := func(address string) (func(), error) {
		return a.begin("in", &Association{client: netip.MustParseAddr(address)})
	}
	lives, err := begin(client)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * maxAssociations {
		end, err := begin(client)
		if err != nil {
			t.Fatal(err)
		}
		end()
	}
	if c := a.all[udpSource{"in", netip.MustParseAddr(client)}]; len(c.live) != 1 || len(c.ports) != 0 {
		t.Errorf("%d are left", len(c.live))
	}
	for range maxAssociations - 1 {
		if _, err := begin(client); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := begin(client); !errors.Is(err, errTooManyAssociations) {
		t.Errorf("error %v", err)
	}
	if _, err := begin("192.0.2.2"); err != nil {
		t.Errorf("of another address: %v", err)
	}
	lives()
	if _, err := begin(client); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// Associations whose account the inbound does not know any more are ended, and no other ones. Accounts are
// looked up while the table is free: the lookup takes locks.
func TestUnknownAccountsEnd(t *testing.T) {
	all := NewAssociations()
	controls := map[string]*closing{}
	for _, account := range []string{"alice", "bob"} {
		controls[account] = &closing{}
		if _, err := all.begin("in", &Association{account: account, client: netip.MustParseAddr(client), control: controls[account]}); err != nil {
			t.Fatal(err)
		}
	}
	all.EndUnknown("in", func(inbound, account string) bool {
		if !all.mu.TryLock() {
			t.Error("an account is looked up while the table is locked")
		} else {
			all.mu.Unlock()
		}
		return inbound == "in" && account == "bob"
	})
	if !controls["alice"].closed || controls["bob"].closed {
		t.Errorf("alice's association has ended: %v, bob's: %v; want hers alone", controls["alice"].closed, controls["bob"].closed)
	}
}
