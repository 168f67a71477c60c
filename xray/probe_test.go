package xray_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/fault"
	"nodeagent/internal/testfiles"
	"nodeagent/xray/state"
)

// onAddresses has an inbound on the rig's port at each of the addresses.
func (r *rig) onAddresses(addresses ...string) state.State {
	r.t.Helper()
	s := state.State{Inbounds: map[string]state.Inbound{}}
	for i, address := range addresses {
		tag := fmt.Sprintf("in-%d", i)
		one, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":%q,"listen":%q,"port":%d,"protocol":"vless","settings":{"decryption":"none"}}]}`, tag, address, r.port)), func(string) bool { return true })
		if err != nil {
			r.t.Fatal(err)
		}
		s.Inbounds[tag] = one.Inbounds[tag]
	}
	return s
}

// shared listens as xray-core does: the kernel would let both have the port.
var shared = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
	var set error
	return errors.Join(c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }), set)
}}

// A port that another process shares is refused, whatever its network, and taken once it
// is free.
func TestPortOfAnotherProcess(t *testing.T) {
	for name, listen := range map[string]func(address string) (io.Closer, error){
		"tcp": func(address string) (io.Closer, error) { return shared.Listen(context.Background(), "tcp", address) },
		"udp": func(address string) (io.Closer, error) {
			return shared.ListenPacket(context.Background(), "udp", address)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			other, err := listen(fmt.Sprintf("127.0.0.1:%d", r.port))
			if err != nil {
				t.Fatal(err)
			}
			err = r.engine.Apply(t.Context(), r.shadowsocks("bob"))
			if refusal, is := errors.AsType[*fault.Fault](err); !is || refusal.Code != fault.PortInUse || int(refusal.Port) != r.port || !strings.Contains(refusal.Message, "held by another process") {
				t.Errorf("got %v", err)
			}
			_ = other.Close()
			r.apply(r.shadowsocks("bob"))
		})
	}
}

// A port that another process shares is refused, also where an inbound has it on another
// address; inbounds change addresses in one change.
func TestPortOnAnotherAddress(t *testing.T) {
	r := newRig(t)
	r.apply(r.onAddresses("127.0.0.1"))
	other, err := shared.Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.2:%d", r.port))
	if err != nil {
		t.Fatal(err)
	}
	err = r.engine.Apply(t.Context(), r.onAddresses("127.0.0.1", "127.0.0.2"))
	if refusal, is := errors.AsType[*fault.Fault](err); !is || refusal.Code != fault.PortInUse {
		t.Errorf("got %v", err)
	}
	_ = other.Close()
	r.apply(r.onAddresses("127.0.0.1", "127.0.0.2"))
	r.apply(r.onAddresses("127.0.0.2", "127.0.0.1"))
	r.apply(r.onAddresses("0.0.0.0"))
	r.apply(r.onAddresses("127.0.0.3", "127.0.0.1"))
}

// A port can be held by an outgoing connection too, which a list of listeners does not show.
func TestPortOfAnOutgoingConnection(t *testing.T) {
	r := newRig(t)
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: r.port}}
	conn, err := from.Dial("tcp", r.echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = r.engine.Apply(t.Context(), r.onAddresses("127.0.0.1"))
	refusal, is := errors.AsType[*fault.Fault](err)
	if !is || refusal.Code != fault.PortInUse {
		t.Fatalf("got %v, want that the port is in use", err)
	}
	for _, words := range []string{"outgoing connection", fmt.Sprintf("'ss -anp sport = :%d'", r.port)} {
		if !strings.Contains(refusal.Message, words) {
			t.Errorf("%q is not in %q", words, refusal.Message)
		}
	}
}

// Where the kernel refuses SO_REUSEPORT, an inbound can't be replaced on its port. The error
// says why, and not that the port is in use by another.
func TestRefusedReusePort(t *testing.T) {
	r := newRig(t)
	testfiles.Replace(t, filepath.Join(r.assets, noReusePort), nil)
	r.apply(r.onAddresses("127.0.0.1"))
	err := r.engine.Apply(t.Context(), r.onAddresses("0.0.0.0"))
	refusal, is := errors.AsType[*fault.Fault](err)
	if !is || refusal.Code == fault.PortInUse || strings.Contains(refusal.Message, "in use") || !strings.Contains(refusal.Message, "the kernel refuses SO_REUSEPORT (operation not permitted)") {
		t.Errorf("got %v", err)
	}
}
