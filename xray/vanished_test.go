package xray_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"nodeagent/internal/namespace"
	"nodeagent/internal/testfiles"
	"nodeagent/xray/ipc"
)

// shortKeepAlive makes keepalive take five seconds: 1 + 4 * 1.
const shortKeepAlive = `"sockopt":{"tcpKeepAliveIdle":1,"tcpKeepAliveInterval":1}`

// presences keeps which addresses of which slots are online.
type presences struct {
	mu     sync.Mutex
	online map[uint32]map[netip.Addr]bool
}

func (p *presences) heard(event ipc.Presence) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.online == nil {
		p.online = map[uint32]map[netip.Addr]bool{}
	}
	if p.online[event.Slot] == nil {
		p.online[event.Slot] = map[netip.Addr]bool{}
	}
	p.online[event.Slot][event.IP] = event.Online
}

func (p *presences) is(slot uint32, address string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.online[slot][netip.MustParseAddr(address)]
}

// any tells whether the slot is online at some address.
func (p *presences) any(slot uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(slices.Collect(maps.Values(p.online[slot])), true)
}

// pourer is a target that sends without an end.
func pourer(t *testing.T) *net.TCPAddr {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for block := make([]byte, 32<<10); ; {
					if _, err := conn.Write(block); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr)
}

// vlessHead is the beginning of a VLESS connection to an IPv4 address.
func vlessHead(t *testing.T, id string, to *net.TCPAddr) []byte {
	t.Helper()
	parsed, err := uuid.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	head := append([]byte{0}, parsed[:]...)
	return append(append(head, 0, 1, byte(to.Port>>8), byte(to.Port), 1), to.IP.To4()...)
}

// phoneDial opens a VLESS connection from the phone, and reads the answer's head.
func (r *rig) phoneDial(phone *namespace.Phone, from, id string, to *net.TCPAddr) (net.Conn, error) {
	conn, err := phone.Dial(from, net.JoinHostPort(hostOf(from), fmt.Sprint(r.port)))
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write(append(vlessHead(r.t, id, to), '!')); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, make([]byte, 3)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, conn.SetReadDeadline(time.Time{})
}

func hostOf(from string) string {
	if netip.MustParseAddr(from).Is6() {
		return "fd77::1"
	}
	return namespace.HostIP
}

// A client that vanishes without a FIN ends within as long as keepalive takes, while it is
// idle and while bytes are under way to it. One that is there and says nothing stays, also if
// it does not read what waits for it.
func TestVanishedPeers(t *testing.T) {
	if !namespace.Beside(t, "true") {
		return
	}
	phone := namespace.NewPhone(t, "10.77.0.2/24", "10.77.0.3/24")
	online := &presences{}
	r := newRigThatTells(t, online.heard)
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"0.0.0.0","port":%d,"protocol":"vless","settings":{"decryption":"none",
		"clients":[{"id":%q},{"id":%q}]},"streamSettings":{%s}}]}`, r.port, aliceID, bobID, shortKeepAlive))
	for i := range s.Inbounds["in-1"].Clients {
		c := s.Inbounds["in-1"].Clients[i]
		c.Slot = map[string]uint32{aliceID: 1, bobID: 2}[c.Key]
	}
	r.apply(s)
	dial := func(from, id string, to net.Addr) net.Conn {
		t.Helper()
		conn, err := r.phoneDial(phone, from, id, to.(*net.TCPAddr))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	echo, pour := r.echo.Addr(), pourer(t)
	silent, paused := dial("10.77.0.3", bobID, echo), dial("10.77.0.3", bobID, pour)
	gone := map[string]net.Addr{"10.77.0.4": echo, "10.77.0.5": pour}
	for from, to := range gone {
		phone.Join(from + "/24")
		conn := dial(from, aliceID, to)
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		r.eventually("alice is online", func() bool { return online.is(1, from) })
		phone.Leave(from + "/24")
	}
	for from := range gone {
		r.within(time.Minute, "alice is offline at "+from, func() bool { return !online.is(1, from) })
	}
	if !online.is(2, "10.77.0.3") {
		t.Error("bob, who is there, is offline")
	}
	if err := use(silent); err != nil {
		t.Errorf("a client that was silent was cut: %v", err)
	}
	if _, err := io.ReadFull(paused, make([]byte, 16<<20)); err != nil {
		t.Errorf("a client that did not read was cut: %v", err)
	}
}

// acceptedIn returns the timers of the connections in a state that a port accepted, as
// /proc/net/tcp has them: kind, and jiffies to go.
func acceptedIn(t *testing.T, state, port int) (timers [][2]uint64) {
	t.Helper()
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || !strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) || fields[3] != fmt.Sprintf("%02X", state) {
			continue
		}
		var kind, jiffies uint64
		if _, err := fmt.Sscanf(fields[5], "%x:%x", &kind, &jiffies); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		timers = append(timers, [2]uint64{kind, jiffies})
	}
	return timers
}

// Accepted connections have keepalive; what sockopt says wins.
func TestKeepAliveByDefault(t *testing.T) {
	const keepAlive, none = 2, 0 // include/net/inet_connection_sock.h: what get_tcp4_sock prints
	const jiffies = 100          // of a second, as /proc has them
	const established = 1
	for name, row := range map[string]struct {
		stream         string
		kind           uint64
		longer, atMost uint64 // seconds
	}{
		"default":      {``, keepAlive, 0, 30},
		"other things": {`,"streamSettings":{"sockopt":{"tcpMaxSeg":1300}}`, keepAlive, 0, 30},
		"websocket":    {`,"streamSettings":{"network":"ws"}`, keepAlive, 0, 30},
		"longer":       {`,"streamSettings":{"sockopt":{"tcpKeepAliveIdle":300}}`, keepAlive, 100, 300},
		"off":          {`,"streamSettings":{"sockopt":{"tcpKeepAliveIdle":-1,"tcpKeepAliveInterval":-1}}`, none, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.apply(r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none",
				"clients":[{"id":%q}]}%s}]}`, r.port, aliceID, row.stream)))
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var timers [][2]uint64
			r.eventually("the connection is accepted", func() bool { timers = acceptedIn(t, established, r.port); return len(timers) == 1 })
			if kind, left := timers[0][0], timers[0][1]/jiffies; kind != row.kind || left < row.longer || left > row.atMost {
				t.Errorf("its timer is of kind %d and ends in %d s", kind, left)
			}
		})
	}
}

// limitIps follows a phone that moves to another address, whatever it had open, and keeps a
// second device out that is there and silent. IPv6 addresses of one network are one.
func TestLimitIPsFollowsAPhone(t *testing.T) {
	if !namespace.Beside(t, "true") {
		return
	}
	phone := namespace.NewPhone(t, "10.77.0.2/24", "fd77::2/64", "fd77::3/64", "fd77:0:0:1::2/64")
	online := &presences{}
	r := newRigThatTells(t, online.heard)
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"::","port":%d,"protocol":"vless","settings":{"decryption":"none",
		"clients":[{"id":%q,"limitIps":1},{"id":%q,"limitIps":1}]}}]}`, r.port, aliceID, bobID))
	for i := range s.Inbounds["in-1"].Clients {
		c := s.Inbounds["in-1"].Clients[i]
		c.Slot = map[string]uint32{aliceID: 1, bobID: 2}[c.Key]
	}
	r.apply(s)
	try := func(from, id string, to net.Addr) (net.Conn, error) {
		return r.phoneDial(phone, from, id, to.(*net.TCPAddr))
	}
	must := func(conn net.Conn, err error) net.Conn {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	echo := r.echo.Addr()
	must(try("10.77.0.2", aliceID, echo))
	pouring := must(try("10.77.0.2", aliceID, pourer(t)))
	go func() { _, _ = io.Copy(io.Discard, pouring) }()
	phone.Join("10.77.0.3/24")
	phone.Leave("10.77.0.2/24")
	var moved net.Conn
	r.within(time.Minute, "the phone is let in from its new address", func() bool {
		var err error
		moved, err = try("10.77.0.3", aliceID, echo)
		return err == nil
	})
	r.eventually("its old address is offline", func() bool { return !online.is(1, "10.77.0.2") })
	phone.Join("10.77.0.4/24")
	for range 3 {
		if _, err := try("10.77.0.4", aliceID, echo); err == nil {
			t.Error("a second device was let in")
		}
	}
	if err := use(moved); err != nil {
		t.Errorf("the silent phone was cut: %v", err)
	}

	must(try("fd77::2", bobID, echo))
	must(try("fd77::3", bobID, echo))
	if _, err := try("fd77:0:0:1::2", bobID, echo); err == nil {
		t.Error("bob was let in from two networks")
	}
}

// A stranger who asks an HTTP carrier for nothing more is not kept.
func TestIdleConnectionsOfHTTP(t *testing.T) {
	const request = "GET /wrong HTTP/1.1\r\nHost: a\r\n\r\n"
	const http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" // and no settings
	for name, row := range map[string]struct{ stream, says string }{
		"websocket":   {`"network":"ws","wsSettings":{"path":"/p"}`, request},
		"httpupgrade": {`"network":"httpupgrade","httpupgradeSettings":{"path":"/p"}`, request},
		"xhttp":       {`"network":"xhttp","xhttpSettings":{"path":"/p"}`, request},
		"xhttp 2":     {`"network":"xhttp","xhttpSettings":{"path":"/p"}`, http2},
		"grpc":        {`"network":"grpc","grpcSettings":{"serviceName":"s"}`, http2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			testfiles.Write(t, filepath.Join(r.assets, shortIdle), "")
			r.apply(r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none",
				"clients":[{"id":%q}]},"streamSettings":{%s}}]}`, r.port, aliceID, row.stream)))
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, row.says); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is kept")
			}
		})
	}
}
