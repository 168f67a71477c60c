package xray_test

import (
	"fmt"
	"io"
	"net"
	"testing"

	"nodeagent/xray/state"
)

// proxyState has one VLESS inbound with bob, which reads the PROXY protocol.
func (r *rig) proxyState(where string) state.State {
	r.t.Helper()
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1",%s,"port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q}]},
		"streamSettings":{"sockopt":{"acceptProxyProtocol":true}}}]}`, where, r.port, bobID))
	s.Inbounds["in-1"].Clients[0].Slot = 2
	return s
}

// A PROXY header without an address ends one connection, not the worker.
func TestPROXYHeaderWithoutAddress(t *testing.T) {
	for name, where := range map[string]string{
		"local": `"listen":"127.0.0.1"`, "trusted": `"listen":"::","trustedProxies":["127.0.0.1"]`, "anybody": `"listen":"0.0.0.0"`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.apply(r.proxyState(where))
			pid := r.engine.Status().PID
			for _, transport := range []byte{0x10, 0x12, 0x13, 0x20, 0x31, 0x00} {
				conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
				if err != nil {
					t.Fatal(err)
				}
				header := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21"), transport, 0, 216)
				if _, err := conn.Write(append(header, make([]byte, 216)...)); err != nil {
					t.Fatal(err)
				}
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, conn) // until the worker is done with it
				_ = conn.Close()
			}
			r.apply(state.State{}) // asks the worker that was there
			if s := r.engine.Status(); s.PID != pid || s.Restarts != 0 {
				t.Errorf("the worker ended: pid %d, then %d", pid, s.PID)
			}
		})
	}
}
