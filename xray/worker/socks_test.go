package worker

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	xnet "github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/proxy/socks"
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
		c := &s.Inbounds["in-1"].Clients[i]
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

// Who asks for accounts and has none lets nobody in, by HTTP neither.
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

// socksOf answers handshakes of an inbound with accounts, or without.
func socksOf(accounts map[string]string, udp bool) *socksServer {
	s := &socksServer{config: &socks.ServerConfig{UdpEnabled: udp, Accounts: accounts}}
	if accounts != nil {
		s.config.AuthType = socks.AuthType_PASSWORD
	}
	return s
}

var socksBound = [2]xnet.Destination{xnet.TCPDestination(xnet.ParseAddress("192.0.2.1"), 1080), xnet.UDPDestination(xnet.ParseAddress("proxy.example"), 1081)}

func TestSOCKSHandshake(t *testing.T) {
	accounts := map[string]string{"u": "pw"}
	for name, c := range map[string]struct {
		accounts      map[string]string
		udp           bool
		sent, answer  string // hexadecimal
		account, asks string
		associates    bool
		fails         string
	}{
		"connect by address":     {nil, false, "05 01 00  05 01 00 01 c0000207 0050", "05 00  05 00 00 01 c0000201 0438", "", "tcp:192.0.2.7:80", false, ""},
		"by name":                {nil, false, "05 02 02 00  05 01 00 03 03 612e62 01bb", "05 00  05 00 00 01 c0000201 0438", "", "tcp:a.b:443", false, ""},
		"by IPv6":                {nil, false, "05 01 00  05 01 00 04 20010db8000000000000000000000001 0050", "05 00  05 00 00 01 c0000201 0438", "", "tcp:[2001:db8::1]:80", false, ""},
		"Tor's resolve":          {nil, false, "05 01 00  05 f0 00 03 03 612e62 0000", "05 00  05 00 00 01 c0000201 0438", "", "tcp:a.b:0", false, ""},
		"with an account":        {accounts, false, "05 02 00 02  01 01 75 02 7077  05 01 00 01 c0000207 0050", "05 02  01 00  05 00 00 01 c0000201 0438", "u", "tcp:192.0.2.7:80", false, ""},
		"another password":       {accounts, false, "05 01 02  01 01 75 02 7078", "05 02  01 ff", "", "", false, "no such account"},
		"no account":             {accounts, false, "05 01 00", "05 ff", "", "", false, "no method"},
		"associate":              {accounts, true, "05 01 02  01 01 75 02 7077  05 03 00 01 00000000 0000", "05 02  01 00  05 00 00 03 0d 70726f78792e6578616d706c65 0439", "u", "tcp:0.0.0.0:0", true, ""},
		"associate without UDP":  {nil, false, "05 01 00  05 03 00 01 00000000 0000", "05 00  05 07 00 01 00000000 0000", "", "", false, "command 3"},
		"bind":                   {nil, true, "05 01 00  05 02 00 01 00000000 0000", "05 00  05 07 00 01 00000000 0000", "", "", false, "command 2"},
		"an address of no kind":  {nil, true, "05 01 00  05 01 00 09 00000000 0000", "05 00", "", "", false, "address"},
		"cut short":              {nil, true, "05 01 00  05 01", "05 00", "", "", false, "request"},
		"SOCKS 4":                {nil, false, "04 01 0050 c0000207 6d6500", "00 5a 0000 00000000", "", "tcp:192.0.2.7:80", false, ""},
		"SOCKS 4a":               {nil, false, "04 01 0050 00000001 00 612e6200", "00 5a 0000 00000000", "", "tcp:a.b:80", false, ""},
		"SOCKS 4a, another way":  {nil, false, "04 01 0050 00000000 00 612e6200", "00 5a 0000 00000000", "", "tcp:a.b:80", false, ""},
		"SOCKS 4 binds":          {nil, false, "04 02 0050 c0000207 00", "00 5b 0000 00000000", "", "", false, "command 2"},
		"SOCKS 4 where accounts": {accounts, false, "04 01 0050 c0000207 7500", "00 5b 0000 00000000", "", "", false, "no accounts"},
	} {
		t.Run(name, func(t *testing.T) {
			sent, _ := hex.DecodeString(strings.ReplaceAll(c.sent, " ", ""))
			answer, _ := hex.DecodeString(strings.ReplaceAll(c.answer, " ", ""))
			var written bytes.Buffer
			request, err := socksOf(c.accounts, c.udp).handshake(sent[0], bytes.NewReader(sent[1:]), &written, socksBound)
			written.Write(request.granted)
			if !bytes.Equal(written.Bytes(), answer) {
				t.Errorf("answer % x, want % x", written.Bytes(), answer)
			}
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v, want %q", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if request.account != c.account || request.associates != c.associates || request.to.String() != c.asks {
				t.Errorf("request %+v to %s", request, request.to)
			}
		})
	}
}

func FuzzSOCKSHandshake(f *testing.F) {
	f.Add(byte(5), []byte("\x01\x00\x05\x01\x00\x03\x03a.b\x01\xbb"), false)
	f.Add(byte(5), []byte("\x01\x02\x01\x01u\x02pw\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"), true)
	f.Add(byte(4), []byte("\x01\x00\x50\x00\x00\x00\x01me\x00a.b\x00"), false)
	f.Fuzz(func(t *testing.T, version byte, sent []byte, asks bool) {
		var accounts map[string]string
		if asks {
			accounts = map[string]string{"u": "pw"}
		}
		request, err := socksOf(accounts, true).handshake(version, bytes.NewReader(sent), io.Discard, socksBound)
		switch {
		case err != nil:
		case asks && request.account != "u":
			t.Errorf("%q got in without an account", sent)
		case request.to.Address == nil || request.granted == nil:
			t.Errorf("%q asks for no address, or waits for no answer: %+v", sent, request)
		}
	})
}
