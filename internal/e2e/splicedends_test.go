package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// The times of the policy, in seconds, that the test sets, and how long a connection is watched
// that should not end.
const (
	testIdle     = 4
	testHalfOpen = 4
	livesFor     = 5 * testIdle / 2 * time.Second
)

// spliceSide is one server with a port that leads to the target. Both are a dokodemo-door whose
// bytes the server splices.
type spliceSide struct {
	name     string
	port     int
	pid      int
	opening  sync.Mutex // one connection is opened at a time
	accepted chan net.Conn
}

// open opens a connection through the server, and moves enough for the server to splice.
func (s *spliceSide) open(t *testing.T) (client, target *net.TCPConn) {
	t.Helper()
	client, target, err := s.connect()
	must(t, err)
	t.Cleanup(func() { _, _ = client.Close(), target.Close() })
	must(t, client.SetDeadline(time.Now().Add(4*Patience)))
	must(t, target.SetDeadline(time.Now().Add(4*Patience)))
	moves(t, client, target, 100)
	moves(t, target, client, 1<<20)
	return client, target
}

func (s *spliceSide) connect() (client, target *net.TCPConn, err error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	conn, err := net.Dial("tcp", loopback(s.port))
	if err != nil {
		return nil, nil, err
	}
	select {
	case other := <-s.accepted:
		return conn.(*net.TCPConn), other.(*net.TCPConn), nil
	case <-time.After(Patience):
		return nil, nil, errors.Join(fmt.Errorf("%s does not connect to the target", s.name), conn.Close())
	}
}

// moves writes bytes into one side, and reads them from the other.
func moves(t *testing.T, from io.Writer, to io.Reader, n int64) {
	t.Helper()
	wrote := make(chan error, 1)
	go func() {
		_, err := from.Write(make([]byte, n))
		wrote <- err
	}()
	_, err := io.CopyN(io.Discard, to, n)
	must(t, errors.Join(<-wrote, err))
}

// endOf returns when reading ends: early, in time, which is after at least the seconds that the
// policy says, or not within the limit.
func endOf(conn net.Conn, after int, limit time.Duration) string {
	began := time.Now()
	_ = conn.SetReadDeadline(began.Add(limit))
	_, err := io.Copy(io.Discard, conn)
	switch took := time.Since(began); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "lives"
	case took < time.Duration(after)*time.Second-500*time.Millisecond:
		return fmt.Sprintf("ends early, after %s", took)
	}
	return "ends in time"
}

// A spliced connection at a half-close, and while it is silent, ends with the node as with a stock
// Xray of the same policy. One thing differs: a stock Xray gives a connection 24
// hours once it splices (proxy/proxy.go, CopyRawConnIfExist), and the node the idle time of the
// policy, as for every other connection.
func TestSplicedConnectionsEndAsInStock(t *testing.T) {
	t.Parallel()
	sides := newSpliceSides(t)
	for _, c := range []struct {
		name        string
		do          func(t *testing.T, client, target *net.TCPConn, limit time.Duration) string
		node, stock string
	}{
		{"the client half-closes, the target answers", func(t *testing.T, client, target *net.TCPConn, limit time.Duration) string {
			must(t, client.CloseWrite())
			moves(t, target, client, 1<<20)
			return endOf(client, testHalfOpen, limit)
		}, "ends in time", "ends in time"},
		{"the client half-closes, the target is silent", func(t *testing.T, client, _ *net.TCPConn, limit time.Duration) string {
			must(t, client.CloseWrite())
			return endOf(client, testHalfOpen, limit)
		}, "ends in time", "ends in time"},
		{"the target half-closes, the client goes on", func(t *testing.T, client, target *net.TCPConn, limit time.Duration) string {
			must(t, target.CloseWrite())
			moves(t, client, target, 1<<20)
			return endOf(target, testHalfOpen, limit)
		}, "ends in time", "ends in time"},
		{"the target closes", func(t *testing.T, client, target *net.TCPConn, limit time.Duration) string {
			must(t, target.Close())
			return endOf(client, 0, limit)
		}, "ends in time", "ends in time"},
		{"little comes for longer than the idle time", func(t *testing.T, client, target *net.TCPConn, limit time.Duration) string {
			for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
				moves(t, target, client, 10)
			}
			return "lives"
		}, "lives", "lives"},
		{"nothing comes", func(_ *testing.T, client, _ *net.TCPConn, limit time.Duration) string {
			return endOf(client, testIdle, limit)
		}, "ends in time", "lives"},
	} {
		for i, side := range sides {
			t.Run(c.name+", "+side.name, func(t *testing.T) {
				t.Parallel()
				client, target := side.open(t)
				want, limit := []string{c.node, c.stock}[i], 2*Patience
				if want == "lives" {
					limit = livesFor
				}
				if got := c.do(t, client, target, limit); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
		}
	}
}

// newSpliceSides starts the node and a stock Xray, and checks that both splice.
func newSpliceSides(t *testing.T) [2]*spliceSide {
	t.Helper()
	w := newScriptedWorld(t, "")
	sides := [2]*spliceSide{{name: "node"}, {name: "stock"}}
	var configs [2]map[string]any
	for i, side := range sides {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		t.Cleanup(func() { _ = l.Close() })
		side.accepted = make(chan net.Conn)
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				side.accepted <- conn
			}
		}()
		side.port, err = FreePort()
		must(t, err)
		configs[i] = map[string]any{
			"inbounds": []any{map[string]any{
				"tag": "in-1", "listen": "127.0.0.1", "port": side.port, "protocol": "dokodemo-door",
				"settings": map[string]any{"address": "127.0.0.1", "port": l.Addr().(*net.TCPAddr).Port, "network": "tcp"},
			}},
			"policy": map[string]any{"levels": map[string]any{"0": map[string]any{"connIdle": testIdle, "uplinkOnly": testHalfOpen, "downlinkOnly": testHalfOpen}}},
		}
	}
	w.serve(nil, configs[0])
	status, err := w.agent.Status(w.ctx)
	must(t, err)
	sides[0].pid = status.Engines.Xray.PID
	configs[1]["log"], configs[1]["outbounds"] = map[string]any{"loglevel": "warning"}, []any{json.RawMessage(freedomToLoopback)}
	raw, err := json.Marshal(configs[1])
	must(t, err)
	file := filepath.Join(w.dir, "stock.json")
	must(t, os.WriteFile(file, raw, 0o600))
	stock, err := start(filepath.Join(w.dir, "stock.log"), w.progs.Xray, "run", "-c", file)
	must(t, err)
	t.Cleanup(stock.Kill)
	sides[1].pid = stock.PID()
	for _, side := range sides {
		must(t, Eventually(w.ctx, func() error { // it listens
			client, target, err := side.connect()
			if err == nil {
				_, _ = client.Close(), target.Close()
			}
			return err
		}))
		client, target := side.open(t)
		const size = 8 << 20
		before := bytesRead(t, side.pid)
		moves(t, target, client, size)
		if n := bytesRead(t, side.pid) - before; float64(n) > splicedAtMost*size {
			t.Fatalf("%s has read %d bytes of %d: it does not splice", side.name, n, size)
		}
		_ = client.Close()
	}
	return sides
}
