package xray_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"nodeagent/internal/namespace"
)

// socksPhone is a client of SOCKS with an association (RFC 1928, section 7).
type socksPhone struct {
	control net.Conn
	socket  *net.UDPConn
	node    *net.UDPAddr
}

func (r *rig) socksPhone(phone *namespace.Phone, from string) *socksPhone {
	r.t.Helper()
	control, err := phone.Dial(from, net.JoinHostPort(namespace.HostIP, fmt.Sprint(r.port)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = control.Close() })
	// The method of accounts, alice's account, and an association with any address.
	if _, err := control.Write([]byte("\x05\x01\x02" + "\x01\x05alice\x01p" + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00")); err != nil {
		r.t.Fatal(err)
	}
	if _, err := io.ReadFull(control, make([]byte, 2+2+10)); err != nil {
		r.t.Fatal(err)
	}
	socket, err := phone.Datagrams(from)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = socket.Close() })
	return &socksPhone{control, socket, &net.UDPAddr{IP: net.ParseIP(namespace.HostIP), Port: r.port}}
}

// answers reports whether a datagram comes back.
func (p *socksPhone) answers(to *net.UDPAddr) bool {
	datagram := append([]byte{0, 0, 0, 1}, to.IP.To4()...)
	datagram = append(datagram, byte(to.Port>>8), byte(to.Port), '!')
	for range 3 { // one may be lost
		if _, err := p.socket.WriteToUDP(datagram, p.node); err != nil {
			return false
		}
		_ = p.socket.SetReadDeadline(time.Now().Add(2 * time.Second)) // it fails on closed sockets alone
		if _, _, err := p.socket.ReadFromUDP(make([]byte, 100)); err == nil {
			return true
		}
	}
	return false
}

// limitIps over datagrams of SOCKS: a phone that moves is let in once the TCP connection that asked for the
// datagrams does not answer. A device that is there and sends nothing stays, and another one is refused.
func TestLimitIPsOverSOCKS(t *testing.T) {
	if !namespace.Beside(t, "true") {
		return
	}
	phone := namespace.NewPhone(t, "10.77.0.2/24", "10.77.0.3/24")
	r := newRig(t)
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"0.0.0.0","port":%d,"protocol":"socks","settings":{"auth":"password","udp":true,"ip":%q,
		"accounts":[{"user":"alice","pass":"p","limitIps":1}]}}]}`, r.port, namespace.HostIP))
	s.Inbounds["in-1"].Clients[0].Slot = 1
	r.apply(s)
	echo := datagramEcho(t)
	first, other := r.socksPhone(phone, "10.77.0.2"), r.socksPhone(phone, "10.77.0.3")
	if !first.answers(echo) {
		t.Fatal("the phone is not served")
	}
	for silent := time.Now(); time.Since(silent) < 40*time.Second; {
		if other.answers(echo) {
			t.Fatal("another device is served while the first one is there")
		}
	}
	if !first.answers(echo) {
		t.Error("the phone was cut")
	}
	phone.Leave("10.77.0.2/24")
	r.within(time.Minute, "the phone is let in at its other address", func() bool { return other.answers(echo) })
}
