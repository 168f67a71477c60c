package xray_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xtls/xray-core/transport/internet/grpc/encoding"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// grpcState has one VLESS inbound over gRPC with bob, who may come from one address.
func (r *rig) grpcState(listen, service, sockopt string) state.State {
	r.t.Helper()
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1",%s,"protocol":"vless",
		"settings":{"decryption":"none","clients":[{"id":%q,"email":%[2]q,"limitIps":1}]},
		"streamSettings":{"network":"grpc","grpcSettings":{"serviceName":%q},"sockopt":{%s}}}]}`, listen, bobID, service, sockopt)), func(string) bool { return true })
	if err != nil {
		r.t.Fatal(err)
	}
	s.Inbounds["in-1"].Clients[0].Slot = 2
	return s
}

func (r *rig) onPort() string { return fmt.Sprintf(`"listen":"127.0.0.1","port":%d`, r.port) }

// dialGRPC is bob's connection by xray-core's client.
func (r *rig) dialGRPC(address string, port int, settings string) (net.Conn, error) {
	conn, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"vless","settings":{"vnext":[{"address":%q,"port":%d,"users":[{"id":%q,"encryption":"none"}]}]},
		"streamSettings":{"network":"grpc","grpcSettings":{%s}}}`, address, port, bobID, settings))
	if err != nil {
		return nil, err
	}
	return conn, use(conn)
}

// tunFrom opens a stream of bob's from a source address with metadata, and tells whether
// it is served.
func (r *rig) tunFrom(source string, pairs ...string) error {
	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", r.port), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
			return dialer.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		return err
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	ctx := metadata.AppendToOutgoingContext(r.t.Context(), pairs...)
	stream, err := encoding.NewGRPCServiceClient(conn).(encoding.GRPCServiceClientX).TunCustomName(ctx, "svc", "Tun")
	if err != nil {
		return err
	}
	echo := r.echo.Addr().(*net.TCPAddr)
	id, _ := hex.DecodeString(strings.ReplaceAll(bobID, "-", ""))
	hello := append(append([]byte{0}, id...), 0, 1)
	hello = binary.BigEndian.AppendUint16(hello, uint16(echo.Port))
	hello = append(append(append(hello, 1), echo.IP.To4()...), "there and back"...)
	if err := stream.Send(&encoding.Hunk{Data: hello}); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() {
		for got := 0; got < len("there and back"); {
			hunk, err := stream.Recv()
			if err != nil {
				served <- err
				return
			}
			got += len(hunk.Data)
		}
		served <- nil
	}()
	select {
	case err := <-served:
		return err
	case <-time.After(patience):
		return fmt.Errorf("neither served nor refused within %s", patience)
	}
}

// A client can't pick its own address by X-Forwarded-For: that is believed of trusted proxies and
// on loopback, of a request that has a header which trustedXForwardedFor names.
func TestGRPCSourceAddress(t *testing.T) {
	const onLoopback, open = `"listen":"127.0.0.1"`, `"listen":"0.0.0.0"`
	claim := []string{"x-forwarded-for", "127.0.0.1"}
	for _, row := range []struct {
		name, listen, sockopt string
		headers               []string
		believed              bool
	}{
		{"nobody is trusted", onLoopback, ``, claim, false},
		{"the header is named", onLoopback, `"trustedXForwardedFor":["X-Forwarded-For"]`, claim, true},
		{"the proxy's header is there", onLoopback, `"trustedXForwardedFor":["X-From-Proxy"]`, append(claim, "x-from-proxy", "1"), true},
		{"the proxy's header is missing", onLoopback, `"trustedXForwardedFor":["X-From-Proxy"]`, claim, false},
		{"the header is named and anybody can connect", open, `"trustedXForwardedFor":["X-Forwarded-For"]`, claim, false},
		{"the proxy is named", open + `,"trustedProxies":["127.0.0.0/8"]`, `"trustedXForwardedFor":["X-Forwarded-For"]`, claim, true},
		{"the proxy is named and no header", open + `,"trustedProxies":["127.0.0.0/8"]`, ``, claim, false},
		{"the proxy is named and its header is missing", open + `,"trustedProxies":["127.0.0.0/8"]`, `"trustedXForwardedFor":["X-From-Proxy"]`, claim, false},
		{"X-Real-IP, which xray-core reads no more", onLoopback, `"trustedXForwardedFor":["X-Real-IP"]`, []string{"x-real-ip", "127.0.0.1"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			r.apply(r.grpcState(fmt.Sprintf(`%s,"port":%d`, row.listen, r.port), "svc", row.sockopt))
			if err := r.tunFrom("127.0.0.1"); err != nil {
				t.Fatal(err)
			}
			if err := r.tunFrom("127.0.0.2"); err == nil {
				t.Fatal("a second address was let in")
			}
			if err := r.tunFrom("127.0.0.2", row.headers...); (err == nil) != row.believed {
				t.Errorf("a second address that says it is the first: %v", err)
			}
		})
	}
}

// A peer that is no trusted proxy is turned away, and the others are served on.
func TestGRPCStrangersAreTurnedAway(t *testing.T) {
	r := newRig(t)
	r.apply(r.grpcState(fmt.Sprintf(`"listen":"::","port":%d,"trustedProxies":["127.0.0.1"]`, r.port), "svc", ""))
	if err := r.tunFrom("127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if err := r.tunFrom("127.0.0.2", "x-forwarded-for", "127.0.0.1"); err == nil {
		t.Error("a stranger was let in")
	}
	if err := r.tunFrom("127.0.0.1"); err != nil {
		t.Errorf("the proxy, again: %v", err)
	}
}

// Where it can't listen the change is refused, and what was before goes on.
func TestGRPCThatCannotListenIsRefused(t *testing.T) {
	r := newRig(t)
	r.apply(r.grpcState(r.onPort(), "svc", ""))
	bob, err := r.dialGRPC("127.0.0.1", r.port, `"serviceName":"svc"`)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "missing", "socket")
	err = r.engine.Apply(t.Context(), r.grpcState(fmt.Sprintf(`"listen":%q`, socket), "svc", ""))
	if failure, ok := errors.AsType[*fault.Fault](err); !ok || failure.Tag != "in-1" || !strings.Contains(failure.Message, socket) {
		t.Errorf("error %v", err)
	}
	if err := use(bob); err != nil {
		t.Error(err)
	}
	if _, err := r.dialGRPC("127.0.0.1", r.port, `"serviceName":"svc"`); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

// Open connections outlive the listener, also beside one that says nothing, and new
// ones meet the new settings. Who is removed is cut all the same.
func TestGRPCConnectionsOutliveTheirListener(t *testing.T) {
	r := newRig(t)
	r.apply(r.grpcState(r.onPort(), "one", ""))
	bob, err := r.dialGRPC("127.0.0.1", r.port, `"serviceName":"one"`)
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r.apply(r.grpcState(r.onPort(), "/two/of/them/tun|multi", ""))
	next, err := r.dialGRPC("127.0.0.1", r.port, `"serviceName":"/two/of/them/multi","multiMode":true`)
	if err != nil {
		t.Fatal(err)
	}
	observed := func() state.State {
		s := r.state(`,"observatory":{"subjectSelector":["direct"],"probeInterval":"1h"}`)
		s.Inbounds = r.grpcState(r.onPort(), "one", "").Inbounds
		return s
	}
	r.apply(observed()) // a new worker
	if r.engine.Status().Draining != 1 {
		t.Error("the old worker does not drain")
	}
	last, err := r.dialGRPC("127.0.0.1", r.port, `"serviceName":"one"`)
	if err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"the first": bob, "the second": next, "the third": last} {
		if err := use(conn); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	without := observed()
	in := without.Inbounds["in-1"]
	in.Clients = nil
	without.Inbounds["in-1"] = in
	r.apply(without)
	for _, conn := range []net.Conn{bob, next, last} {
		r.cut(conn)
	}
	r.eventually("bob's slot is closed", r.slotClosed(2))
	r.eventually("the old worker ends", func() bool { return r.engine.Status().Draining == 0 })
}

// A unix socket passes to the listener that takes the other one's place.
func TestGRPCUnixSocketIsHandedOn(t *testing.T) {
	r := newRig(t)
	socket := filepath.Join(t.TempDir(), "socket")
	for i, service := range []string{"one", "two", "three", "four"} {
		more := ""
		if i == 3 { // a new worker
			more = `,"observatory":{"subjectSelector":["direct"],"probeInterval":"1h"}`
		}
		s := r.state(more)
		s.Inbounds = r.grpcState(fmt.Sprintf(`"listen":%q`, socket+",0600"), service, "").Inbounds
		r.apply(s)
		conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		r.eventually("the service is there", func() bool {
			stream, err := encoding.NewGRPCServiceClient(conn).(encoding.GRPCServiceClientX).TunCustomName(t.Context(), service, "Tun")
			if err == nil {
				_ = stream.Send(&encoding.Hunk{Data: make([]byte, 64)}) // what is wrong Recv tells
				_, err = stream.Recv()
			}
			return errors.Is(err, io.EOF) // no client has this id
		})
	}
}
