package socks

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/xtls/xray-core/common/buf"
	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/protocol"
	udpproto "github.com/xtls/xray-core/common/protocol/udp"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/proxy/socks"
	"github.com/xtls/xray-core/transport/internet/stat"
	"github.com/xtls/xray-core/transport/internet/udp"

	"nodeagent/xray/worker/traffic"
)

// Holds tells whether the inbound still has the association's account, with its password.
func (s *Server) Holds(one *Association) bool {
	if !s.asksForAccounts() {
		return one.account == ""
	}
	return s.config.HasAccount(one.account, one.password)
}

// datagrams serves the datagrams from one source port until xray-core closes conn, two minutes
// after the last datagram.
func (s *Server) datagrams(ctx context.Context, inbound *session.Inbound, conn stat.Connection, dispatcher routing.Dispatcher) error {
	source := sourcePort(inbound)
	one := s.associations.of(inbound.Tag, source, s.Holds, conn)
	switch {
	case one != nil:
		inbound.User.Email = one.account
		ctx = traffic.AskedBy(ctx, func() netip.AddrPort { return s.associations.control(inbound.Tag, source, conn) })
		defer s.associations.rest(inbound.Tag, source, conn)
	case s.asksForAccounts():
		return fmt.Errorf("datagrams from %s: no client at this address has an association", source)
	}
	way := udp.NewDispatcher(dispatcher, func(ctx context.Context, packet *udpproto.Packet) { sendBack(ctx, conn, packet) })
	defer way.RemoveRay()
	reader := buf.NewPacketReader(conn)
	var first *net.Destination
	for {
		packets, err := reader.ReadMultiBuffer()
		if err != nil {
			return err
		}
		for _, packet := range packets {
			request, err := socks.DecodeUDPPacket(packet)
			if err != nil || packet.IsEmpty() {
				packet.Release()
				continue
			}
			to := request.Destination()
			packet.UDP = &to
			if !s.cone || first == nil {
				first = &to
			}
			way.Dispatch(protocol.ContextWithRequestHeader(ctx, request), *first, packet)
		}
	}
}

// sendBack sends an answer to the client, with the address from which the answer came.
func sendBack(ctx context.Context, client io.Writer, packet *udpproto.Packet) {
	defer packet.Payload.Release()
	header := protocol.RequestHeaderFromContext(ctx)
	if from := packet.Payload.UDP; from != nil {
		header = &protocol.RequestHeader{Address: from.Address, Port: from.Port}
	}
	if header == nil {
		return
	}
	message, err := socks.EncodeUDPPacket(header, nil)
	if err != nil {
		xerrors.LogDebugInner(ctx, err, "an answer from an address that SOCKS can't express is dropped")
		return
	}
	defer message.Release()
	// EncodeUDPPacket has room for 8,192 bytes. append uses that room, and makes more for a longer
	// datagram. A client that is gone is noticed elsewhere.
	_, _ = client.Write(append(message.Bytes(), packet.Payload.Bytes()...))
}
