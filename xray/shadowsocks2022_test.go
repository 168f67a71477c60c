package xray_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sagernet/sing-shadowsocks/shadowaead_2022"
	"github.com/sagernet/sing/common/metadata"

	"nodeagent/xray/state"
)

const (
	ssMethod = "2022-blake3-aes-128-gcm"
	// ssHeader is how many bytes a client sends until it is known: salt, identity, and
	// the fixed part with its tag.
	ssHeader = 16 + 16 + 11 + 16
)

func ssKey(name string) string {
	return base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("%-16.16s", name)))
}

// shadowsocks has one Shadowsocks 2022 inbound. The clients' slots are their places in
// slotNames.
func (r *rig) shadowsocks(names ...string) state.State {
	r.t.Helper()
	var clients []string
	for _, name := range names {
		clients = append(clients, fmt.Sprintf(`{"password":%q,"email":%q}`, ssKey(name), name))
	}
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"shadowsocks",
		"settings":{"method":%q,"password":%q,"network":"tcp,udp","clients":[%s]}}]}`, r.port, ssMethod, ssKey("server"), strings.Join(clients, ","))),
		func(string) bool { return true })
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range s.Inbounds["in-1"].Clients {
		c := s.Inbounds["in-1"].Clients[i]
		c.Slot = map[string]uint32{"alice": 1, "bob": 2, "carol": 3}[c.Key]
	}
	return s
}

// ssDial asks for the echo as a client; between is called when the server knows him
// and does not know yet what he asks for.
func (r *rig) ssDial(name string, between func()) (net.Conn, error) {
	method, err := shadowaead_2022.NewWithPassword(ssMethod, ssKey("server")+":"+ssKey(name), nil)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return method.DialConn(&halting{Conn: conn, between: between}, metadata.SocksaddrFromNet(r.echo.Addr()))
}

// halting sends a client's header by itself.
type halting struct {
	net.Conn
	between func()
}

func (h *halting) Write(p []byte) (int, error) {
	if h.between == nil {
		return h.Conn.Write(p)
	}
	if _, err := h.Conn.Write(p[:ssHeader]); err != nil {
		return 0, err
	}
	h.between()
	h.between = nil
	n, err := h.Conn.Write(p[ssHeader:])
	return n + ssHeader, err
}

// A client who is removed in the middle of a handshake is not served, and not taken for
// somebody else.
func TestShadowsocksClientIsRemovedInHandshake(t *testing.T) {
	r := newRig(t)
	r.apply(r.shadowsocks("alice", "bob"))
	r.eventually("the worker has been asked", func() bool { return r.engine.Status().Goroutines > 0 })
	knows := r.engine.Status().Goroutines
	conn, err := r.ssDial("alice", func() {
		// The header has no answer: the server has taken it once it waits for more.
		r.eventually("the server has the header", func() bool { return r.engine.Status().Goroutines > knows })
		r.apply(r.shadowsocks("bob"))
		r.apply(r.shadowsocks("bob", "carol"))
	})
	if err == nil {
		err = use(conn)
	}
	if err == nil {
		t.Error("a client who was removed in the middle of a handshake was served")
	}
	for slot := range uint32(4) {
		if up, down := r.counters.Read(slot); up != 0 || down != 0 {
			t.Errorf("slot %d has %d up and %d down of nobody's", slot, up, down)
		}
	}
	for _, name := range []string{"bob", "carol"} {
		conn, err := r.ssDial(name, nil)
		if err == nil {
			err = use(conn)
		}
		if err == nil {
			err = echo(conn, 1<<20) // more than fits into the library's buffers
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Clients come and go while others connect and send datagrams: all who stay are served.
// The race detector watches it in the worker.
func TestShadowsocksClientsComeAndGo(t *testing.T) {
	r := newRig(t)
	r.apply(r.shadowsocks("alice", "bob"))
	stop := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			conn, err := r.ssDial("bob", nil)
			if err == nil {
				err = use(conn)
			}
			if err != nil {
				t.Errorf("bob: %v", err)
				return
			}
			_ = conn.Close()
		}
	})
	working.Go(func() {
		method, err := shadowaead_2022.NewWithPassword(ssMethod, ssKey("server")+":"+ssKey("bob"), nil)
		if err != nil {
			t.Error(err)
			return
		}
		udp, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", r.port))
		if err != nil {
			t.Error(err)
			return
		}
		defer udp.Close()
		packets := method.DialPacketConn(udp)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if _, err := packets.WriteTo([]byte("a datagram"), metadata.SocksaddrFromNet(r.echo.Addr())); err != nil {
				t.Errorf("bob's datagrams: %v", err)
				return
			}
		}
	})
	for i := range 40 {
		if i%2 == 0 {
			r.apply(r.shadowsocks("bob", "carol"))
		} else {
			r.apply(r.shadowsocks("alice", "bob"))
		}
	}
	close(stop)
	working.Wait()
}
