package xray_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/apernet/quic-go"
	"github.com/apernet/quic-go/http3"
	xhysteria "github.com/xtls/xray-core/proxy/hysteria"

	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// hysteriaNode is a rig with a Hysteria inbound, whose client is bob.
func hysteriaNode(t *testing.T) (r *rig, port int, running state.State) {
	t.Helper()
	r, port = newRig(t), freePort(t)
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	running = r.hysteriaState(port, certificate, key, bobID)
	r.apply(running)
	return r, port, running
}

// udpEchoServer sends back what it gets.
func udpEchoServer(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buffer[:n], from)
		}
	}()
	return conn.LocalAddr().String()
}

// Datagrams of 1 to 9,000 bytes come back with their bytes, though the fragments of three
// sessions, with two datagrams each, are mixed, and fragments of other datagrams are lost.
func TestHysteriaDatagrams(t *testing.T) {
	_, port, _ := hysteriaNode(t)
	client, echo := enterHysteria(t, port, bobID), udpEchoServer(t)
	random := rand.New(rand.NewPCG(1, 2))
	pieces := map[[2]uint32]*xhysteria.Defragger{}
	packet := uint16(0)
	for _, size := range []int{1, 100, 1150, 1170, 1200, 1250, 1400, 1500, 3000, 5000, 8191, 8192, 8193, 9000} {
		want := map[string]uint32{}
		var messages [][]byte
		for session := range uint32(3) {
			for range 2 {
				data := make([]byte, size)
				for i := range data {
					data[i] = byte(random.Uint32())
				}
				want[string(data)] = session
				packet++
				messages = append(messages, fragments(session, packet, echo, data)...)
			}
			packet++
			if lost := fragments(session, packet, echo, make([]byte, 3000)); size > 1150 {
				messages = append(messages, lost[1:]...)
			}
		}
		if size > 1 { // sizes of one message come in their order
			random.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
		}
		for _, message := range messages {
			if err := client.conn.SendDatagram(message); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		for len(want) > 0 {
			session, from, data, err := client.receive(ctx, pieces)
			if err != nil {
				t.Fatalf("%d bytes: %d datagrams are missing: %v", size, len(want), err)
			}
			if at, sent := want[string(data)]; !sent || at != session || from != echo {
				t.Fatalf("%d bytes: session %d got %d bytes from %s that are not its own", size, session, len(data), from)
			}
			delete(want, string(data))
		}
		cancel()
	}
}

// A request of HTTP/3 goes through a session of Hysteria.
func TestHTTP3ThroughHysteria(t *testing.T) {
	_, port, _ := hysteriaNode(t)
	page := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(page)
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	site := &http3.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h3"}}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(sent, page) {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.Write(page)
	})}
	go func() { _ = site.Serve(socket) }()
	t.Cleanup(func() { _, _ = site.Close(), socket.Close() })

	through := &quic.Transport{Conn: enterHysteria(t, port, bobID).tunnel(1)}
	t.Cleanup(func() { _ = through.Close() })
	web := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}},
		Dial: func(ctx context.Context, _ string, config *tls.Config, settings *quic.Config) (*quic.Conn, error) {
			return through.DialEarly(ctx, socket.LocalAddr(), config, settings)
		},
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://site.test/", bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := web.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || !bytes.Equal(got, page) {
		t.Errorf("the site answers %s with %d bytes: %v", answer.Status, len(got), err)
	}
}

// noticesWithin is a few times the second within which a client must know that its connection
// has ended. Without being told it waits for its idle timeout, 30 seconds.
const noticesWithin = 5 * time.Second

// A client is told at once that its inbound ends: at a removal, and at the end of the worker.
func TestHysteriaTellsItsClientsOfAStop(t *testing.T) {
	r, port, _ := hysteriaNode(t)
	client := enterHysteria(t, port, bobID)
	r.apply(state.State{})
	var told *quic.ApplicationError
	if err := client.endsWithin(noticesWithin); !errors.As(err, &told) || !told.Remote {
		t.Errorf("the connection ended with %v", err)
	}
}

// A client of a worker that is killed is told by the next worker that its connection is no
// more.
func TestHysteriaTellsItsClientsOfACrash(t *testing.T) {
	r, port, _ := hysteriaNode(t)
	client := enterHysteria(t, port, bobID)
	if err := syscall.Kill(r.engine.Status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() { // as a client that is in use
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				_ = client.conn.SendDatagram(make([]byte, 1000))
			}
		}
	}()
	var reset *quic.StatelessResetError
	if err := client.endsWithin(noticesWithin); !errors.As(err, &reset) {
		t.Errorf("the connection ended with %v", err)
	}
}

// endsWithin returns why the connection has ended.
func (c *hysteriaClient) endsWithin(patience time.Duration) error {
	select {
	case <-c.conn.Context().Done():
		return context.Cause(c.conn.Context())
	case <-time.After(patience):
		return errors.New("it has not ended")
	}
}
