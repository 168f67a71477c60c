package relay

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/apernet/quic-go"
	"golang.org/x/sys/unix"

	"nodeagent/internal/occupancy"
)

// worker is a relay with a listener of QUIC, which answers each stream with what comes.
type worker struct {
	t         *testing.T
	relay     *Relay
	transport *quic.Transport
	socket    net.PacketConn
	conns     chan *quic.Conn
}

// sharedPorts listens where other workers do.
var sharedPorts = net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
	_ = conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return err
}}

// hidden hides that a socket is one of UDP, as a mask does.
type hidden struct{ net.PacketConn }

func startWorker(t *testing.T, table, at string, masked bool) *worker {
	t.Helper()
	rows, err := occupancy.Open(table)
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{t: t, conns: make(chan *quic.Conn, 100)}
	key := sha256.Sum256([]byte(table)) // names of unix sockets are made of it: other tests need others
	if w.relay, err = New(rows, key[:]); err != nil {
		t.Fatal(err)
	}
	socket, err := sharedPorts.ListenPacket(t.Context(), "udp", at)
	if err != nil {
		t.Fatal(err)
	}
	if masked {
		socket = hidden{socket}
	}
	w.socket = w.relay.listen(socket)
	w.transport = &quic.Transport{Conn: w.socket}
	w.relay.transport(w.transport)
	listener, err := w.transport.Listen(&tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"echo"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			w.conns <- conn
			go func() {
				for {
					stream, err := conn.AcceptStream(context.Background())
					if err != nil {
						return
					}
					go func() { _, _ = io.Copy(stream, stream); _ = stream.Close() }()
				}
			}()
		}
	}()
	t.Cleanup(func() { w.end(); _ = rows.Close() })
	return w
}

func (w *worker) end() {
	_ = w.transport.Close()
	_ = w.socket.Close()
	_ = w.relay.Close()
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	made, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{made}, PrivateKey: key}
}

// client connects from a socket of its own.
func client(t *testing.T, at net.Addr) *quic.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := quic.DialAddr(ctx, at.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"echo"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	return conn
}

func echo(conn *quic.Conn, size int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	sent := make([]byte, size)
	_, _ = rand.Read(sent)
	go func() { _, _ = stream.Write(sent); _ = stream.Close() }()
	_ = stream.SetReadDeadline(time.Now().Add(10 * time.Second))
	got, err := io.ReadAll(stream)
	if err == nil && !bytes.Equal(got, sent) {
		err = fmt.Errorf("%d bytes came back of %d", len(got), size)
	}
	return err
}

// A relay without a free descriptor takes the connections of other workers later.
func TestAcceptOutlivesErrors(t *testing.T) {
	answers := []error{unix.EMFILE, unix.ECONNABORTED, net.ErrClosed}
	new(Relay).accept(func() (*net.UnixConn, error) {
		err := answers[0]
		answers = answers[1:]
		return nil, &net.OpError{Op: "accept", Err: err}
	})
	if len(answers) > 0 {
		t.Errorf("it ended before %d more answers", len(answers))
	}
}

// Connections of a worker that drains go on while the next worker listens on the same port, whatever
// socket the kernel chooses; new connections come to the next worker, and once the old one has ended
// it has the port alone. Also over a masked socket.
func TestConnectionsOutliveATakeover(t *testing.T) {
	for name, masked := range map[string]bool{"a socket of UDP": false, "a masked socket": true} {
		t.Run(name, func(t *testing.T) {
			table := filepath.Join(t.TempDir(), "open")
			old := startWorker(t, table, "127.0.0.1:0", masked)
			at := old.socket.LocalAddr()
			var clients []*quic.Conn
			for range 8 { // all in the kernel's choice for one worker: 1 in 256
				clients = append(clients, client(t, at))
			}
			next := startWorker(t, table, at.String(), masked)
			old.relay.Drain()
			for i, conn := range clients {
				if err := echo(conn, 300_000); err != nil {
					t.Errorf("client %d of the old worker: %v", i, err)
				}
			}
			for range 8 {
				conn := client(t, at)
				if err := echo(conn, 10_000); err != nil {
					t.Errorf("a new client: %v", err)
				}
				select {
				case <-next.conns:
				case <-time.After(10 * time.Second):
					t.Fatal("a new client came to the worker that drains")
				}
			}
			if len(old.conns) != len(clients) {
				t.Errorf("the old worker has %d connections, want %d", len(old.conns), len(clients))
			}
			if next.relay.Passed.Load() == 0 || old.relay.Passed.Load() == 0 {
				t.Errorf("the next worker has passed %d datagrams, the old one %d", next.relay.Passed.Load(), old.relay.Passed.Load())
			}
			old.end()
			if err := echo(client(t, at), 10_000); err != nil {
				t.Errorf("after the end of the old worker: %v", err)
			}
		})
	}
}
