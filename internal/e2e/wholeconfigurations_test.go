package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"nodeagent/internal/namespace"
	"nodeagent/internal/otherclients"
)

// giver is a server that counts every byte. A connection that begins with a line "GIVE N" gets N bytes;
// any other one is read to its end: clients try on their own whether a proxy works.
type giver struct {
	listener net.Listener
	up, down atomic.Int64
	open     sync.WaitGroup
}

func newGiver(t *testing.T) *giver {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	g := &giver{listener: listener}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			g.open.Go(func() { g.serve(conn) })
		}
	}()
	return g
}

func (g *giver) serve(conn net.Conn) {
	defer conn.Close()
	counted := &readCounter{from: conn, n: &g.up}
	reader := bufio.NewReader(counted)
	var give int64
	if first, err := reader.Peek(5); err == nil && string(first) == "GIVE " {
		if _, err := fmt.Fscanf(reader, "GIVE %d\n", &give); err == nil {
			n, _ := conn.Write(make([]byte, give))
			g.down.Add(int64(n))
		}
	}
	_, _ = io.Copy(io.Discard, reader)
}

type readCounter struct {
	from io.Reader
	n    *atomic.Int64
}

func (r *readCounter) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	r.n.Add(int64(n))
	return n, err
}

// exchangeWith sends and gets bytes over a connection to the giver, and closes it.
func exchangeWith(conn net.Conn, up, down int) error {
	defer conn.Close()
	late := conn.SetDeadline(time.Now().Add(Patience / 3))
	_, err := fmt.Fprintf(conn, "GIVE %d\n", down)
	if err == nil {
		_, err = conn.Write(make([]byte, up))
	}
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, down))
	}
	return errors.Join(late, err)
}

// Each whole configuration is used as Core gives it, without a change: with its groups, its DNS and its
// rules, and sing-box with its tunnel, on a machine that has nothing else. The bytes are counted exactly,
// those too with which the clients try the proxies.
func TestWholeConfigurationsInUse(t *testing.T) {
	namespace.Parallel(t)
	var clients []string
	for _, c := range []otherclients.Client{otherclients.SingBox, otherclients.Mihomo} {
		clients = append(clients, c.Variable+"="+c.Path(t))
	}
	if !inside(t, ":", clients...) {
		return
	}
	phone := namespace.NewPhone(t, "10.77.0.2/24")
	phone.RouteAll()
	w := newWorld(t)
	certFile, keyFile := w.writeCert(newCert(t))
	t.Setenv("SSL_CERT_FILE", certFile)
	overTLS := func(network map[string]any) map[string]any {
		return merged(network, map[string]any{"security": "tls", "tlsSettings": map[string]any{"serverName": "site.test", "certificates": []any{map[string]any{"certificateFile": certFile, "keyFile": keyFile}}}})
	}
	g := newGiver(t)
	w.redirectTo(&Target{listener: g.listener})
	for _, in := range []map[string]any{
		{"protocol": "vless", "settings": decryption, "streamSettings": overTLS(transport("ws", map[string]any{"path": "/ws"}))},
		{"protocol": "trojan", "settings": map[string]any{}, "streamSettings": overTLS(map[string]any{"network": "raw"})},
		{"protocol": "shadowsocks", "settings": shadowsocksRow.settings},
	} {
		port, err := FreePort()
		must(t, err)
		in["listen"], in["port"] = namespace.HostIP, port
		_, err = w.core.AddInbound(w.ctx, "node", in)
		must(t, err)
	}
	alice := w.subscriber("alice")
	w.start()
	var shown struct{ URL string }
	must(t, w.core.Do(w.ctx, &shown, "subscription", "show", alice.UUID))
	for _, c := range []struct {
		form, file, program string
		socks               string // where the configuration takes connections
		tunnel              bool
		args                func(folder, file string) []string
	}{
		{"xray", "config.json", w.progs.Xray, "127.0.0.1:10808", false, func(_, file string) []string { return []string{"run", "-c", file} }},
		{"mihomo", "config.yaml", otherclients.Mihomo.Path(t), "127.0.0.1:7890", false, otherPrograms[1].args},
		{"sing-box", "config.json", otherclients.SingBox.Path(t), "127.0.0.1:2080", true, otherPrograms[0].args},
	} {
		t.Run(c.form, func(t *testing.T) {
			folder := filepath.Join(w.dir, c.form)
			must(t, os.Mkdir(folder, 0o700))
			file := filepath.Join(folder, c.file)
			must(t, os.WriteFile(file, fetch(t, shown.URL, c.form), 0o600))
			name, args := phone.Command(c.program, c.args(folder, file)...)
			client, err := start(filepath.Join(folder, "log"), name, args...)
			must(t, err)
			defer client.Kill()
			defer w.showLog(c.form, client)
			before := g.down.Load()
			dialer, err := proxy.SOCKS5("tcp", phone.Relay("127.0.0.1", c.socks), nil, proxy.Direct)
			must(t, err)
			must(t, Eventually(w.ctx, func() error {
				conn, err := dialer.Dial("tcp", somewhere)
				if err != nil {
					return err
				}
				return exchangeWith(conn, 300_007, 500_009)
			}))
			if c.tunnel { // every program of the machine is in it
				conn, err := phone.Dial("", somewhere)
				must(t, err)
				must(t, exchangeWith(conn, 100_003, 200_017))
			}
			if g.down.Load() == before {
				t.Error("nothing came through the node")
			}
		})
	}
	g.open.Wait() // the clients have ended, and their connections with them
	w.stopAgent()
	if got, want := w.counted()["alice"], (Traffic{g.up.Load(), g.down.Load()}); got != want {
		t.Errorf("%s were counted, and %s moved", got, want)
	}
}
