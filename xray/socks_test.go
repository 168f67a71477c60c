package xray_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// serveSOCKS serves accounts whose passwords are their names.
func (r *rig) serveSOCKS(accounts ...string) {
	r.t.Helper()
	list := make([]string, len(accounts))
	for i, name := range accounts {
		list[i] = fmt.Sprintf(`{"user":%q,"pass":%[1]q}`, name)
	}
	r.serveSOCKSOf(`"auth":"password","accounts":[` + strings.Join(list, ",") + `]`)
}

// serveSOCKSOf serves settings. Who is a client keeps its slot.
func (r *rig) serveSOCKSOf(settings string) {
	r.t.Helper()
	slots := map[string]uint32{"alice": 1, "bob": 2, "carol": 3}
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"socks","settings":{"udp":true,%s}}]}`, r.port, settings))
	for i := range s.Inbounds["in-1"].Clients {
		c := s.Inbounds["in-1"].Clients[i]
		c.Slot = slots[c.Key]
	}
	r.apply(s)
}

// associate asks to send datagrams, and returns the connection on which that was asked.
func (r *rig) associate(account string, port uint16) net.Conn {
	r.t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(r.port)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	hello := append([]byte{5, 1, 2, 1, byte(len(account))}, account...)
	hello = append(append(hello, byte(len(account))), account...)
	hello = append(hello, 5, 3, 0, 1, 0, 0, 0, 0, byte(port>>8), byte(port))
	if _, err := conn.Write(hello); err != nil {
		r.t.Fatal(err)
	}
	want := []byte{5, 2, 1, 0, 5, 0, 0, 1, 127, 0, 0, 1, byte(r.port >> 8), byte(r.port)}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
		r.t.Fatalf("answer % x, %v; want % x", got, err, want)
	}
	return conn
}

func (r *rig) udpSocket() *net.UDPConn {
	r.t.Helper()
	conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: r.port})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// bounce sends a datagram through SOCKS to the echo, until it comes back or a while has
// passed.
func bounce(conn *net.UDPConn, echo netip.AddrPort, tries int) error {
	datagram := append([]byte{0, 0, 0, 1}, echo.Addr().AsSlice()...)
	datagram = append(append(datagram, byte(echo.Port()>>8), byte(echo.Port())), "there and back"...)
	var err error
	for range tries {
		if _, err = conn.Write(datagram); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		back := make([]byte, 2048)
		var n int
		if n, err = conn.Read(back); err == nil {
			if !bytes.Equal(back[:n], datagram) {
				return fmt.Errorf("% x came back", back[:n])
			}
			return nil
		}
	}
	return err
}

const soon = 20 // tries

// Datagrams over SOCKS are their client's: counted for it, and gone with its account,
// while those of a neighbour behind the same address go on, over changes of the accounts.
func TestSOCKSDatagrams(t *testing.T) {
	r, echo := newRig(t), echoDatagrams(t).AddrPort()
	r.serveSOCKS("alice", "bob")
	conns := map[string]*net.UDPConn{}
	controls := map[string]net.Conn{}
	for _, name := range []string{"alice", "bob"} {
		controls[name] = r.associate(name, 0)
		conns[name] = r.udpSocket()
		if err := bounce(conns[name], echo, soon); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for slot, name := range []string{1: "alice", 2: "bob"} {
		if up, down := r.counters.Read(uint32(slot)); slot > 0 && (up == 0 || up != down) {
			t.Errorf("%s: %d bytes up and %d down were counted", name, up, down)
		}
	}
	r.serveSOCKS("bob")
	r.cut(controls["alice"])
	if err := bounce(conns["alice"], echo, 1); err == nil {
		t.Error("datagrams of a removed account come back")
	}
	if err := bounce(conns["bob"], echo, soon); err != nil {
		t.Errorf("the neighbour: %v", err)
	}
	r.serveSOCKS("bob", "carol")
	if err := bounce(conns["bob"], echo, soon); err != nil {
		t.Errorf("the neighbour, when somebody comes: %v", err)
	}
	controls["late"] = r.associate("bob", 0)
	if err := controls["bob"].Close(); err != nil {
		t.Fatal(err)
	}
	if err := bounce(conns["bob"], echo, soon); err != nil {
		t.Errorf("where another association of its account lives: %v", err)
	}
	if err := controls["late"].Close(); err != nil {
		t.Fatal(err)
	}
	r.eventually("datagrams of an association that ended are refused", func() bool { return bounce(conns["bob"], echo, 1) != nil })
}

// An association is worth what its account is worth now: none of before accounts were
// asked for, and none with another password.
func TestAssociationsFollowTheirAccounts(t *testing.T) {
	r, echo := newRig(t), echoDatagrams(t).AddrPort()
	open := func() net.Conn {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	r.serveSOCKSOf(`"auth":"noauth"`)
	control := open()
	r.serveSOCKS("alice")
	r.cut(control)
	if err := bounce(r.udpSocket(), echo, 1); err == nil {
		t.Error("datagrams without an account come back")
	}
	control = r.associate("alice", 0)
	socket := r.udpSocket()
	if err := bounce(socket, echo, soon); err != nil {
		t.Fatal(err)
	}
	r.serveSOCKSOf(`"auth":"password","accounts":[{"user":"alice","pass":"another"}]`)
	r.cut(control)
	if err := bounce(socket, echo, 1); err == nil {
		t.Error("datagrams with the old password come back")
	}
}

// An inbound that asks for accounts and has none lets nobody in, by HTTP neither.
func TestSOCKSWithoutAnyAccount(t *testing.T) {
	r := newRig(t)
	r.serveSOCKSOf(`"auth":"password"`)
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\n\r\n", r.echo.Addr()); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(conn); !bytes.Contains(answer, []byte(" 407 ")) {
		t.Errorf("answer %q", answer)
	}
}

// Where nothing is asked for, no association is.
func TestSOCKSDatagramsWithoutAccounts(t *testing.T) {
	r, echo := newRig(t), echoDatagrams(t).AddrPort()
	r.serveSOCKSOf(`"auth":"noauth"`)
	if err := bounce(r.udpSocket(), echo, soon); err != nil {
		t.Error(err)
	}
	r.serveSOCKS("alice")
	if err := bounce(r.udpSocket(), echo, 1); err == nil {
		t.Error("datagrams of nobody come back")
	}
	control := r.associate("alice", 0)
	r.port = freePort(t)
	r.serveSOCKS("alice") // where its client does not know
	r.cut(control)
	control = r.associate("alice", 0)
	r.apply(r.state("", bobID)) // another protocol in its place
	r.cut(control)
}
