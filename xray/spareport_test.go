package xray

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/namespace"
	"nodeagent/xray/state"
)

// Without a worker, a spare gives its port up where the next worker is not to have it, and where no
// worker comes.
func TestSparesGiveTheirPortUp(t *testing.T) {
	if !namespace.Inside(t, "echo 1 >/proc/sys/net/ipv4/tcp_migrate_req") {
		return
	}
	for name, lose := range map[string]func(s *spares, runs state.State){
		"the inbound is removed": func(s *spares, _ state.State) { s.keep(nil, state.State{}) },
		"no worker comes": func(s *spares, runs state.State) {
			s.keep(nil, runs)
			s.alone = s.alone.Add(-spareWait - time.Second)
			s.keep(nil, runs)
		},
	} {
		t.Run(name, func(t *testing.T) {
			shared := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
				return control(conn, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			}}
			shared.SetMultipathTCP(false)
			workers, err := shared.Listen(context.Background(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			at := workers.Addr().String()
			runs := state.State{Inbounds: map[string]state.Inbound{"in": {Tag: "in", Protocol: "vless", Config: json.RawMessage(fmt.Sprintf(`{"listen":"127.0.0.1","port":%d,"protocol":"vless"}`, workers.Addr().(*net.TCPAddr).Port))}}}
			s := newSpares(slog.New(slog.DiscardHandler))
			s.keep(&workerClient{}, runs)
			if err := workers.Close(); err != nil {
				t.Fatal(err)
			}
			s.keep(nil, runs)
			waiting, err := net.Dial("tcp", at)
			if err != nil {
				t.Fatalf("while the next worker is awaited: %v", err)
			}
			defer waiting.Close()
			lose(s, runs)
			if _, err := net.Dial("tcp", at); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("afterwards a connection gets %v", err)
			}
		})
	}
}
