package xray_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/apernet/quic-go"
	"github.com/apernet/quic-go/http3"
	xhysteria "github.com/xtls/xray-core/proxy/hysteria"
)

// hysteriaClient is a client of Hysteria 2 that sends what a test wants.
type hysteriaClient struct {
	t    *testing.T
	conn *quic.Conn
}

// enterHysteria connects and shows auth, which is right.
func enterHysteria(t *testing.T, port int, auth string) *hysteriaClient {
	t.Helper()
	client, status := showHysteria(t, port, auth)
	if status != 233 {
		t.Fatalf("the auth is answered with %d", status)
	}
	return client
}

// showHysteria connects and shows auth. It returns the status of the answer.
func showHysteria(t *testing.T, port int, auth string) (_ *hysteriaClient, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, &quic.Config{
		EnableDatagrams: true, MaxDatagramFrameSize: 1200, KeepAlivePeriod: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://hysteria/auth", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Hysteria-Auth", auth)
	answer, err := new(http3.Transport).NewClientConn(conn).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return &hysteriaClient{t, conn}, answer.StatusCode
}

// fragments are the messages for one datagram, which is sent to an address.
func fragments(session uint32, id uint16, to string, data []byte) [][]byte {
	whole := xhysteria.UDPMessage{SessionID: session, PacketID: id, FragCount: 1, Addr: to, Data: data}
	var all [][]byte
	for _, part := range xhysteria.FragUDPMessage(&whole, 1150) {
		message := make([]byte, part.Size())
		part.Serialize(message)
		message[0], message[1], message[2], message[3] = byte(session>>24), byte(session>>16), byte(session>>8), byte(session)
		all = append(all, message)
	}
	return all
}

// receive returns the next whole datagram, and its session.
func (c *hysteriaClient) receive(ctx context.Context, pieces map[[2]uint32]*xhysteria.Defragger) (session uint32, from string, data []byte, err error) {
	for {
		raw, err := c.conn.ReceiveDatagram(ctx)
		if err != nil {
			return 0, "", nil, err
		}
		message, err := xhysteria.ParseUDPMessage(raw)
		if err != nil {
			return 0, "", nil, err
		}
		key := [2]uint32{message.SessionID, uint32(message.PacketID)}
		if pieces[key] == nil {
			pieces[key] = &xhysteria.Defragger{}
		}
		if whole := pieces[key].Feed(message); whole != nil {
			delete(pieces, key)
			return whole.SessionID, whole.Addr, slices.Clone(whole.Data), nil
		}
	}
}

// tunnel is one session as a socket.
type tunnel struct {
	net.PacketConn // nil: what a test does not use
	client         *hysteriaClient
	session        uint32
	packet         uint16
	pieces         map[[2]uint32]*xhysteria.Defragger
	life           context.Context
	end            context.CancelFunc
}

func (c *hysteriaClient) tunnel(session uint32) *tunnel {
	life, end := context.WithCancel(c.t.Context())
	return &tunnel{client: c, session: session, pieces: map[[2]uint32]*xhysteria.Defragger{}, life: life, end: end}
}

func (s *tunnel) ReadFrom(p []byte) (int, net.Addr, error) {
	_, from, data, err := s.client.receive(s.life, s.pieces)
	if err != nil {
		return 0, nil, err
	}
	address, err := net.ResolveUDPAddr("udp", from)
	return copy(p, data), address, err
}

func (s *tunnel) WriteTo(p []byte, to net.Addr) (int, error) {
	s.packet++
	for _, message := range fragments(s.session, s.packet, to.String(), p) {
		if err := s.client.conn.SendDatagram(message); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (s *tunnel) Close() error                     { s.end(); return nil }
func (s *tunnel) LocalAddr() net.Addr              { return s.client.conn.LocalAddr() }
func (s *tunnel) SetDeadline(time.Time) error      { return nil }
func (s *tunnel) SetReadDeadline(time.Time) error  { s.end(); return nil } // quic-go's way to end a read
func (s *tunnel) SetWriteDeadline(time.Time) error { return nil }
