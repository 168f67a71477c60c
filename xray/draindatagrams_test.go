package xray_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nodeagent/xray/state"
)

// observing lets another worker take over.
func observing(s state.State) state.State {
	s.Base.Observatory = json.RawMessage(`{"subjectSelector":["direct"],"probeInterval":"1h"}`)
	return s
}

// socksOn is a SOCKS inbound with the accounts, whose passwords are their names.
func (r *rig) socksOn(port int, accounts ...string) state.State {
	list := make([]string, len(accounts))
	for i, name := range accounts {
		list[i] = fmt.Sprintf(`{"user":%q,"pass":%[1]q}`, name)
	}
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"socks","settings":{"udp":true,"auth":"password","accounts":[%s]}}],
		"outbounds":[{"tag":"direct","protocol":"freedom"}]}`, port, strings.Join(list, ",")))
	for _, c := range s.Inbounds["in-1"].Clients {
		c.Slot = map[string]uint32{"alice": 1, "bob": 2}[c.Key]
	}
	return s
}

// namedEcho answers each datagram, and tells from which ports of the node it has got one.
type namedEcho struct {
	*net.UDPConn
	mu    sync.Mutex
	ports map[string]map[uint16]bool // by the last byte of the datagram
}

func newNamedEcho(t *testing.T) *namedEcho {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	e := &namedEcho{UDPConn: conn, ports: map[string]map[uint16]bool{}}
	go func() {
		data := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(data)
			if err != nil {
				return
			}
			e.mu.Lock()
			name := string(data[n-1 : n])
			if e.ports[name] == nil {
				e.ports[name] = map[uint16]bool{}
			}
			e.ports[name][from.Port()] = true
			e.mu.Unlock()
			_, _ = conn.WriteToUDPAddrPort(data[:n], from)
		}
	}()
	return e
}

func (e *namedEcho) at() netip.AddrPort { return e.LocalAddr().(*net.UDPAddr).AddrPort() }

func (e *namedEcho) portsOf(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.ports[name])
}

// bounceNamed sends a datagram that ends with name through SOCKS, once, and waits for it.
func bounceNamed(conn *net.UDPConn, echo netip.AddrPort, name string) error {
	datagram := append([]byte{0, 0, 0, 1}, echo.Addr().AsSlice()...)
	datagram = append(append(datagram, byte(echo.Port()>>8), byte(echo.Port())), "there and back "+name...)
	if _, err := conn.Write(datagram); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	back := make([]byte, 2048)
	n, err := conn.Read(back)
	if err == nil && string(back[:n]) != string(datagram) {
		err = fmt.Errorf("% x came back", back[:n])
	}
	return err
}

// Associations of SOCKS go on in the worker that drains, whatever socket the kernel chooses: no datagram is
// lost, each one is counted once, for its client, and leaves the node by the port as before. An account that
// is removed meanwhile is cut there, and the worker ends with its last association.
func TestAssociationsOutliveATakeover(t *testing.T) {
	r, echo := newRig(t), newNamedEcho(t)
	r.apply(r.socksOn(r.port, "alice", "bob"))
	const each = 8 // all in the kernel's choice for one worker: 1 in 256
	controls := map[string]net.Conn{}
	sockets, sent := map[string]*net.UDPConn{}, map[uint32]uint64{}
	send := func(account string, slot uint32, name string) {
		t.Helper()
		if sockets[name] == nil {
			sockets[name] = r.udpSocket()
		}
		if err := bounceNamed(sockets[name], echo.at(), name); err != nil {
			t.Fatalf("%s's datagram from socket %s: %v", account, name, err)
		}
		sent[slot] += uint64(len("there and back ") + len(name))
	}
	for i := range each {
		name := string(rune('a' + i))
		controls[name] = r.associate("alice", 0)
		send("alice", 1, name)
	}
	controls["bob"] = r.associate("bob", 0)
	send("bob", 2, "z")
	controls["later"] = r.associate("alice", 0) // nothing has come of it yet

	old := r.engine.Status().PID
	r.apply(observing(r.socksOn(r.port, "alice", "bob")))
	if s := r.engine.Status(); s.PID == old || s.Draining != 1 {
		t.Fatalf("status %+v, want a worker that drains beside another one", s)
	}
	for range 3 {
		for i := range each {
			send("alice", 1, string(rune('a'+i)))
		}
		send("bob", 2, "z")
	}
	send("alice", 1, "y") // of the association that waited
	for i := range each {
		if n := echo.portsOf(string(rune('a' + i))); n != 1 {
			t.Errorf("the datagrams of socket %d left the node by %d ports", i, n)
		}
	}
	for slot, want := range sent {
		if up, down := r.counters.Read(slot); up != down || up != want {
			t.Errorf("slot %d: %d bytes up and %d down were counted, want %d", slot, up, down, want)
		}
	}
	controls["new"] = r.associate("alice", 0)
	send("alice", 1, "x")

	r.apply(observing(r.socksOn(r.port, "alice")))
	r.cut(controls["bob"])
	_ = sockets["z"].SetReadDeadline(time.Now().Add(time.Second))
	if err := bounce(sockets["z"], echo.at(), 1); err == nil {
		t.Error("datagrams of a removed account come back")
	}
	send("alice", 1, "a")
	for name, control := range controls {
		if name != "new" {
			_ = control.Close()
		}
	}
	r.within(3*time.Minute, "the worker that drains ends", func() bool { return r.engine.Status().Draining == 0 })
	send("alice", 1, "x")
}

// The first datagram of an association in the worker that drains is its client's, though a neighbour has
// associated with the next worker meanwhile and has sent something.
func TestAFirstDatagramAfterATakeover(t *testing.T) {
	r, echo := newRig(t), newNamedEcho(t)
	r.apply(r.socksOn(r.port, "alice", "bob"))
	_ = r.associate("alice", 0) // she sends nothing yet
	r.apply(observing(r.socksOn(r.port, "alice", "bob")))
	_ = r.associate("bob", 0)
	counted := func(slot uint32) uint64 {
		up, _ := r.counters.Read(slot)
		return up
	}
	for slot, name := range map[uint32]string{1: "alice", 2: "bob"} {
		if n := counted(slot); n != 0 {
			t.Fatalf("%d bytes are counted for %s, who has sent nothing", n, name)
		}
	}
	if err := bounceNamed(r.udpSocket(), echo.at(), "b"); err != nil {
		t.Fatal(err)
	}
	if alices, bobs := counted(1), counted(2); alices != 0 || bobs == 0 {
		t.Errorf("of bob's datagram %d bytes are counted for alice, %d for him", alices, bobs)
	}
	bobs := counted(2)
	if err := bounceNamed(r.udpSocket(), echo.at(), "a"); err != nil {
		t.Fatal(err)
	}
	if counted(1) == 0 || counted(2) != bobs {
		t.Errorf("of alice's datagram %d bytes are counted for her, %d for bob", counted(1), counted(2)-bobs)
	}
}

// Datagrams that are longer than xray-core's buffers reach the worker that serves them whole, whatever socket
// the kernel chooses.
func TestLongDatagramsAfterATakeover(t *testing.T) {
	r := newRig(t)
	echo, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		data := make([]byte, 64<<10)
		for {
			n, from, err := echo.ReadFromUDPAddrPort(data)
			if err != nil {
				return
			}
			_, _ = echo.WriteToUDPAddrPort(data[:n], from)
		}
	}()
	door := func() state.State {
		return r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"dokodemo-door","settings":{"address":"127.0.0.1","port":%d,"network":"udp"}}],
			"outbounds":[{"tag":"direct","protocol":"freedom"}]}`, r.port, echo.LocalAddr().(*net.UDPAddr).Port))
	}
	r.apply(door())
	bounceLong := func(socket *net.UDPConn, size int) {
		t.Helper()
		sent, back := bytes.Repeat([]byte(strconv.Itoa(size)), size/4+1)[:size], make([]byte, 64<<10)
		if _, err := socket.Write(sent); err != nil {
			t.Fatal(err)
		}
		_ = socket.SetReadDeadline(time.Now().Add(patience))
		if n, err := socket.Read(back); err != nil || !bytes.Equal(back[:n], sent) {
			t.Fatalf("of a datagram of %d bytes came back %d, and the error %v", size, n, err)
		}
	}
	var old []*net.UDPConn
	for range 8 { // all in the kernel's choice for one worker: 1 in 256
		old = append(old, r.udpSocket())
		bounceLong(old[len(old)-1], 1000)
	}
	r.apply(observing(door()))
	for _, size := range []int{8191, 8192, 8193, 9000, 8192, 60_000} {
		for _, socket := range old {
			bounceLong(socket, size)
		}
		for range 8 {
			bounceLong(r.udpSocket(), size)
		}
	}
}
