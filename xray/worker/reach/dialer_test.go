package reach

import (
	"context"
	"errors"
	gonet "net"
	"net/netip"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/transport/internet"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"nodeagent/internal/namespace"
)

// asked is the context of a client's stream at its outbound.
func asked(t *testing.T, to net.Destination) context.Context {
	t.Helper()
	ctx := session.ContextWithInbound(t.Context(), &session.Inbound{Name: "socks"})
	ctx = session.ContextWithOutbounds(ctx, []*session.Outbound{{Target: to, OriginalTarget: to}})
	ctx, choice := Choose(ctx, nil)
	if choice == nil {
		t.Fatal("a client's destination is not taken for its choice")
	}
	return ctx
}

func listenAt(t *testing.T, address string) gonet.Listener {
	t.Helper()
	l, err := gonet.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A name whose address changes between two queries (DNS rebinding) leads nowhere that was not
// checked: the address that is dialled is one that was checked.
func TestRebinding(t *testing.T) {
	Install(New([]netip.Prefix{netip.MustParsePrefix("127.9.0.1/32")}))
	t.Cleanup(func() { current.Store(nil); internet.UseAlternativeSystemDialer(nil) })
	allowed := listenAt(t, "127.9.0.1:0")
	port := net.Port(allowed.Addr().(*gonet.TCPAddr).Port)
	inner := listenAt(t, gonet.JoinHostPort("127.0.0.1", port.String()))
	var reached atomic.Int64
	go func() {
		for {
			conn, err := inner.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			_ = conn.Close()
		}
	}()
	// The name has the open address at the first query, and loopback at all further ones.
	var queries atomic.Int64
	useNames(t, func() [4]byte {
		if queries.Add(1) == 1 {
			return [4]byte{127, 9, 0, 1}
		}
		return [4]byte{127, 0, 0, 1}
	})
	to := net.TCPDestination(net.DomainAddress("rebinding.test"), port)
	for i := range 4 {
		conn, err := internet.DialSystem(asked(t, to), to, nil)
		if denied, is := errors.AsType[*Denied](err); i > 0 && (!is || denied.Address != netip.MustParseAddr("127.0.0.1")) {
			t.Errorf("query %d: %v", i, err)
		}
		if i == 0 && err != nil {
			t.Error(err)
		}
		if conn != nil {
			if got := conn.RemoteAddr().String(); got != allowed.Addr().String() {
				t.Errorf("query %d leads to %s", i, got)
			}
			_ = conn.Close()
		}
	}
	udp := net.UDPDestination(net.DomainAddress("rebinding.test"), port)
	if _, err := internet.DialSystem(asked(t, udp), udp, nil); err == nil {
		t.Error("a name of loopback can be dialled over UDP")
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("loopback was reached %d times", n)
	}
}

// useNames makes Go's resolver get the address for each name.
func useNames(t *testing.T, address func() [4]byte) {
	t.Helper()
	server, err := gonet.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: address()},
				}}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(answer, from)
			}
		}
	}()
	before := gonet.DefaultResolver
	t.Cleanup(func() { gonet.DefaultResolver = before })
	gonet.DefaultResolver = &gonet.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (gonet.Conn, error) {
		var d gonet.Dialer
		return d.DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// A destination is the choice of the client or of the configuration.
func TestChoose(t *testing.T) {
	Install(New(nil))
	t.Cleanup(func() { current.Store(nil); internet.UseAlternativeSystemDialer(nil) })
	to := net.TCPDestination(net.LocalHostIP, 80)
	sniffed := net.TCPDestination(net.DomainAddress("localhost"), 80)
	hops := func(ctx context.Context, targets ...net.Destination) context.Context {
		var outbounds []*session.Outbound
		for _, target := range targets {
			outbounds = append(outbounds, &session.Outbound{Target: target, OriginalTarget: to})
		}
		return session.ContextWithOutbounds(ctx, outbounds)
	}
	from := func(in *session.Inbound) context.Context { return session.ContextWithInbound(t.Context(), in) }
	client := from(&session.Inbound{Name: "vless"})
	first, _ := Choose(hops(client, to), nil)
	for name, c := range map[string]struct {
		ctx context.Context
		is  bool
	}{
		"a client's":                   {hops(client, to), true},
		"of a unix socket":             {hops(from(&session.Inbound{Name: "http"}), to), true},
		"xray-core's own":              {hops(from(&session.Inbound{Tag: "dns"}), to), false},
		"without an inbound":           {hops(t.Context(), to), false},
		"a tunnel's":                   {hops(ByOperator(client), to), false},
		"a tunnel's, sniffed":          {hops(ByOperator(client), sniffed), true},
		"a bridge's":                   {hops(from(&session.Inbound{Name: "vless-reverse"}), to), false},
		"of a proxy behind another":    {hops(client, to, to), false},
		"of freedom behind freedom":    {hops(first, to, to), true},
		"of the third one of a chain":  {hops(first, to, to, to), false},
		"of an outbound that has none": {client, false},
	} {
		if _, choice := Choose(c.ctx, nil); (choice != nil) != c.is {
			t.Errorf("the destination %s: taken for a client's choice: %v", name, choice != nil)
		}
	}
}

// An address that the host gets and loses is followed. A route of another table, as transparent
// inbounds have it, is not taken for the host's addresses.
func TestFollow(t *testing.T) {
	if !namespace.Inside(t, "ip route add local 0.0.0.0/0 dev lo table 100 && ip route add local 203.0.113.0/24 dev lo") {
		return
	}
	p := New(nil)
	if err := p.Refresh(); err != nil {
		t.Fatal(err)
	}
	if p.Check(netip.MustParseAddr("203.0.113.77")) == nil {
		t.Error("an address that the host takes for its own, by a route, may be reached")
	}
	if err := p.Check(netip.MustParseAddr("8.8.8.8")); err != nil {
		t.Errorf("because of a route for transparent inbounds: %v", err)
	}
	go p.Follow(t.Context())
	address := netip.MustParseAddr("198.51.100.9")
	for _, change := range []string{"add", "del"} {
		// The subscription may begin after the first change: it is made until it is noticed.
		for deadline := time.Now().Add(20 * time.Second); (p.Check(address) != nil) != (change == "add"); {
			if time.Now().After(deadline) {
				t.Fatalf("ip addr %s is not noticed", change)
			}
			_ = exec.Command("ip", "addr", change, "198.51.100.9/32", "dev", "lo").Run()
			if change == "add" {
				_ = exec.Command("ip", "addr", "add", "198.51.100.10/32", "dev", "lo").Run()
				_ = exec.Command("ip", "addr", "del", "198.51.100.10/32", "dev", "lo").Run()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// A connection of quickDialer has the options that xray-core's own dialer sets.
func TestQuickDialerSetsWhatXraySets(t *testing.T) {
	listener, err := gonet.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	options := func(dialer internet.SystemDialer) (values [5]int) {
		conn, err := dialer.Dial(t.Context(), nil, net.DestinationFromAddr(listener.Addr()), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw, err := conn.(*gonet.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			for i, option := range [][2]int{
				{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
				{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
				{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
				{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
				{unix.IPPROTO_TCP, unix.TCP_NODELAY},
			} {
				if values[i], err = unix.GetsockoptInt(int(fd), option[0], option[1]); err != nil {
					t.Error(err)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		return values
	}
	if ours, its := options(&quickDialer{}), options(&internet.DefaultSystemDialer{}); ours != its {
		t.Errorf("keepalive, its three times, and no delay are %v; xray-core has %v", ours, its)
	}
}
