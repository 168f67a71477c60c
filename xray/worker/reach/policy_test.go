package reach

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

func TestCheck(t *testing.T) {
	p := New([]netip.Prefix{netip.MustParsePrefix("127.9.0.0/16"), netip.MustParsePrefix("203.0.113.8/32")})
	p.own.Store(networks("203.0.113.7/32", "203.0.113.8/32", "2001:db8::7/128", "10.0.0.5/32"))
	for address, denied := range map[string]bool{
		"127.0.0.1": true, "127.255.255.255": true, "::1": true, "::ffff:127.0.0.1": true, "::127.0.0.1": true,
		"0.0.0.0": true, "0.1.2.3": true, "::": true, "::ffff:0.0.0.0": true,
		"169.254.169.254": true, "fe80::1": true, "fe80::1%eth0": true, "febf::1": true, "::ffff:169.254.169.254": true,
		"224.0.0.251": true, "ff02::fb": true, "255.255.255.255": true,
		"203.0.113.7": true, "::ffff:203.0.113.7": true, "2001:db8::7": true, "10.0.0.5": true,
		"64:ff9b::7f00:1": true, "64:ff9b::a9fe:a9fe": true, "64:ff9b::203.0.113.7": true, "64:ff9b:1::203.0.113.7": true,
		"64:ff9b:1:a9fe:a9:fe00::": true, "2002:7f00:1::1": true, "2002:cb00:7107::": true,

		"127.9.0.1": false, "::ffff:127.9.0.1": false, "203.0.113.8": false, "64:ff9b::203.0.113.8": false,
		"203.0.113.9": false, "10.0.0.6": false, "192.168.0.1": false, "2001:db8::8": false, "8.8.8.8": false,
		"64:ff9b::8.8.8.8": false, "2002:808:808::1": false, "239.1.2.3": false,
	} {
		err := p.Check(netip.MustParseAddr(address))
		if _, is := errors.AsType[*Denied](err); is != denied {
			t.Errorf("%s: %v, want denied %v", address, err, denied)
		}
	}
}

// The host's own addresses are found.
func TestOwnAddresses(t *testing.T) {
	p := New(nil)
	if err := p.Refresh(); err != nil {
		t.Fatal(err)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		network, err := netip.ParsePrefix(a.String())
		if err != nil {
			t.Fatal(err)
		}
		if p.Check(network.Addr()) == nil {
			t.Errorf("clients may reach %s, an address of this host", network.Addr())
		}
	}
	if err := p.Check(netip.MustParseAddr("8.8.8.8")); err != nil {
		t.Error(err)
	}
}
