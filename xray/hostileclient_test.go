package xray_test

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/sagernet/sing-shadowsocks/shadowaead_2022"
	"github.com/sagernet/sing/common/metadata"
	"lukechampine.com/blake3"

	"nodeagent/xray/state"
)

// ssDatagram is a client's datagram, made by hand so that it can lie
// (https://shadowsocks.org/doc/sip022.html, 3.2): to is an address as SOCKS writes it.
func ssDatagram(t *testing.T, name string, session, number uint64, to []byte, padding uint16) []byte {
	t.Helper()
	server, user := []byte(fmt.Sprintf("%-16.16s", "server")), []byte(fmt.Sprintf("%-16.16s", name))
	head := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, session), number)
	block, err := aes.NewCipher(server)
	if err != nil {
		t.Fatal(err)
	}
	identity := blake3.Sum512(user)
	for i := range head {
		identity[i] ^= head[i]
	}
	packet := make([]byte, 2*aes.BlockSize)
	block.Encrypt(packet, head)
	block.Encrypt(packet[aes.BlockSize:], identity[:aes.BlockSize])
	body := binary.BigEndian.AppendUint64([]byte{shadowaead_2022.HeaderTypeClient}, uint64(time.Now().Unix()))
	body = append(append(binary.BigEndian.AppendUint16(body, padding), to...), "a datagram"...)
	block, err = aes.NewCipher(shadowaead_2022.SessionKey(user, head[:8], 16))
	if err != nil {
		t.Fatal(err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return seal.Seal(packet, head[4:16], body, nil)
}

// Datagrams of a client that lies end nothing but themselves: the worker goes on, and
// clients can be changed.
func TestShadowsocksDatagramsThatLie(t *testing.T) {
	r := newRig(t)
	honest := binary.BigEndian.AppendUint16([]byte{1, 127, 0, 0, 1}, uint16(echoDatagrams(t).Port))
	r.apply(r.shadowsocks("alice", "bob"))
	pid := r.engine.Status().PID
	udp, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	number := uint64(0)
	comesBack := func() {
		t.Helper()
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			number++
			if _, err := udp.Write(ssDatagram(t, "alice", 7, number, honest, 0)); err != nil {
				t.Fatal(err)
			}
			if err := udp.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := udp.Read(make([]byte, 2048)); err == nil {
				return // what is sent after a lie may be lost with it
			}
		}
		t.Fatal("no datagram comes back")
	}
	comesBack()
	for what, lie := range map[string][]byte{
		"a name that is none":        ssDatagram(t, "alice", 7, 901, []byte{3, 3, 'a', ' ', 'b', 0, 53}, 0),
		"more padding than there is": ssDatagram(t, "alice", 8, 1, honest, 65_000),
		"half an address":            ssDatagram(t, "alice", 7, 903, honest[:3], 0),
	} {
		if _, err := udp.Write(lie); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		comesBack()
	}
	number = 1000
	comesBack()
	r.apply(r.shadowsocks("alice", "carol"))
	comesBack()
	if status := r.engine.Status(); status.PID != pid || len(r.failed) > 0 {
		t.Errorf("status %+v, failures %+v", status, r.failed)
	}
}

// A client learns that the other side has ended.
func TestShadowsocksTargetEnds(t *testing.T) {
	r := newRig(t)
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		conn, err := target.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Read(make([]byte, 100))
		_, _ = conn.Write([]byte("all there is"))
		_ = conn.Close()
	}()
	r.apply(r.shadowsocks("alice"))
	method, err := shadowaead_2022.NewWithPassword(ssMethod, ssKey("server")+":"+ssKey("alice"), nil)
	if err != nil {
		t.Fatal(err)
	}
	outer, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := method.DialConn(outer, metadata.SocksaddrFromNet(target.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("a question")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(conn); err != nil || string(all) != "all there is" {
		t.Errorf("got %q, %v", all, err)
	}
	r.eventually("the stream is over", func() bool { return r.engine.Status().Streams == 0 })
}

// A client who sends a burst of datagrams that nobody reads, for the first asks for a
// name that is none or the client is at its limit, does not hold up the next change.
func TestABurstHoldsUpNothing(t *testing.T) {
	const sessions, burst = 20, 200
	for name, c := range map[string]struct {
		limited bool
		first   []byte // a destination
	}{
		"a name that is none": {false, []byte{3, 3, 'a', ' ', 'b', 0, 53}},
		"at the limit":        {true, []byte{1, 127, 0, 0, 1, 0, 53}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			state := func(names ...string) state.State {
				s := r.shadowsocks(names...)
				alice := s.Inbounds["in-1"].Clients[slices.IndexFunc(s.Inbounds["in-1"].Clients, func(c *state.Client) bool { return c.Key == "alice" })]
				if c.limited {
					alice.Group, alice.Limits = "alice", state.Limits{Connections: 1}
				}
				return s
			}
			r.apply(state("alice", "bob"))
			if c.limited { // the one that she may have
				conn, err := r.ssDial("alice", nil)
				if err == nil {
					err = use(conn)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for session := range uint64(sessions) {
				conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", r.port))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				datagrams := [][]byte{ssDatagram(t, "alice", session, 1, c.first, 0)}
				for i := range uint64(burst) {
					datagrams = append(datagrams, ssDatagram(t, "alice", session, i+2, []byte{1, 127, 0, 0, 1, 0, 53}, 0))
				}
				for _, d := range datagrams {
					_, _ = conn.Write(d)
				}
			}
			pid := r.engine.Status().PID
			r.apply(state("alice", "bob", "carol"))
			if now := r.engine.Status().PID; now != pid {
				t.Errorf("worker %d was replaced by %d", pid, now)
			}
		})
	}
}
