package worker

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"

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

	"nodeagent/xray"
)

// association is a client's right to send datagrams, as long as the connection lives by
// which it asked for that (RFC 1928, section 7).
type association struct {
	account string
	user    *user // nil for an account that is nobody's
	client  netip.Addr
	port    uint16    // from which it said that its datagrams come; 0 for none
	control io.Closer // that connection
	// ports with who reads their datagrams, nil between two.
	ports map[uint16]io.Closer
	ended bool
}

// associations are those of all SOCKS inbounds by tag, in the order in which they came.
// They outlive their inbound's handler: one that takes its place goes on with them.
type associations struct {
	// find looks an account up; strange is one that the inbound has not.
	find func(inbound, account string) (u *user, strange bool)

	mu  sync.Mutex
	all map[string][]*association
}

// begin returns what ends it.
func (a *associations) begin(inbound string, one *association) (end func(), err error) {
	var strange bool
	if one.account != "" {
		one.user, strange = a.find(inbound, one.account)
	}
	if strange {
		return nil, errNotOfThisClient
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[inbound] = append(a.all[inbound], one)
	return func() {
		for _, reader := range a.ended(inbound, one) {
			_ = reader.Close()
		}
	}, nil
}

// ended returns who read its datagrams. It is remembered while others of its address live,
// for its client may go on to send from its ports.
func (a *associations) ended(inbound string, one *association) (readers []io.Closer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, reader := range one.ports {
		if reader != nil {
			readers = append(readers, reader)
		}
	}
	one.ended = true
	lives := func(other *association) bool { return other.client == one.client && !other.ended }
	if !slices.ContainsFunc(a.all[inbound], lives) {
		a.all[inbound] = slices.DeleteFunc(a.all[inbound], func(other *association) bool { return other.client == one.client })
	}
	if len(a.all[inbound]) == 0 {
		delete(a.all, inbound)
	}
	return readers
}

// of returns the association to which a source's datagrams belong, nil for none, and notes
// who reads them. Nothing in a datagram tells whose it is: where several clients of one
// address have not said their ports, the port is the one's who asked last and has none yet.
// Further ports are taken, but for those of somebody who was there before.
func (a *associations) of(inbound string, source netip.AddrPort, reader io.Closer) *association {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found, before *association
	best := another
	for _, one := range a.all[inbound] {
		if one.client != source.Addr() {
			continue
		}
		likely := one.likely(source.Port())
		switch {
		case one.ended && likely == has:
			before = one
		case !one.ended && likely >= best:
			found, best = one, likely
		}
	}
	if found == nil || best == another && before != nil && before.account != found.account {
		return nil
	}
	if before != nil {
		delete(before.ports, source.Port())
	}
	found.ports[source.Port()] = reader
	return found
}

// How much speaks for a port being an association's.
const (
	another = iota // it has others
	first          // it has none yet
	told           // the client said so
	has            // it was its before
)

// likely is called under the lock.
func (one *association) likely(port uint16) int {
	switch _, is := one.ports[port]; {
	case is:
		return has
	case one.port == port:
		return told
	case len(one.ports) == 0:
		return first
	}
	return another
}

// rest notes that nobody reads a source's datagrams, which stay the association's.
func (a *associations) rest(one *association, source netip.AddrPort, reader io.Closer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if one.ports[source.Port()] == reader {
		one.ports[source.Port()] = nil
	}
}

// inboundChanged ends the associations of an inbound that listens elsewhere now: where to
// send datagrams their clients were told once. Or else it ends those whose account is gone.
func (a *associations) inboundChanged(before, now xray.Inbound) {
	was, err1 := before.Bindings()
	is, err2 := now.Bindings()
	if err1 != nil || err2 != nil || !slices.Equal(was, is) {
		a.end(now.Tag)
		return
	}
	a.endStrangers(now.Tag)
}

// endStrangers ends those whose account is gone, or is another one of its name.
func (a *associations) endStrangers(inbound string) {
	a.mu.Lock()
	all := slices.Clone(a.all[inbound])
	a.mu.Unlock()
	for _, one := range all {
		if one.account == "" {
			continue
		}
		if now, strange := a.find(inbound, one.account); strange || now != one.user {
			_ = one.control.Close()
		}
	}
}

// end ends all of an inbound that listens no more.
func (a *associations) end(inbound string) {
	a.mu.Lock()
	all := slices.Clone(a.all[inbound])
	a.mu.Unlock()
	for _, one := range all {
		_ = one.control.Close()
	}
}

// datagrams serves what comes from one source until it is silent for long.
func (s *socksServer) datagrams(ctx context.Context, inbound *session.Inbound, conn stat.Connection, dispatcher routing.Dispatcher) error {
	source := sourcePort(inbound)
	one := s.associations.of(inbound.Tag, source, conn)
	switch {
	case one != nil:
		inbound.User.Email = one.account
		defer s.associations.rest(one, source, conn)
	case s.asksForAccounts():
		return fmt.Errorf("datagrams from %s: no client there asked to send some", source)
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

// sendBack sends an answer to the client, with the address that it comes from.
func sendBack(ctx context.Context, client io.Writer, packet *udpproto.Packet) {
	defer packet.Payload.Release()
	header := protocol.RequestHeaderFromContext(ctx)
	if from := packet.Payload.UDP; from != nil {
		header = &protocol.RequestHeader{Address: from.Address, Port: from.Port}
	}
	if header == nil {
		return
	}
	message, err := socks.EncodeUDPPacket(header, packet.Payload.Bytes())
	if err != nil {
		xerrors.LogDebugInner(ctx, err, "a datagram that does not fit is dropped")
		return
	}
	defer message.Release()
	_, _ = client.Write(message.Bytes()) // a client that is gone is noticed elsewhere
}
