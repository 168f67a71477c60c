package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"

	xdispatcher "github.com/xtls/xray-core/app/dispatcher"
	"github.com/xtls/xray-core/common"
	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/transport"
	"github.com/xtls/xray-core/transport/pipe"

	"nodeagent/xray/worker/inbound/wireguard"
)

// Dispatcher wraps xray-core's dispatcher. Every stream of every inbound passes it, so it is
// where the client of a stream is looked up, bytes are counted and limits are enforced.
//
// It holds no state and no lock of its own. All state is in clients (see Registry) and in the
// stream, which DispatchLink makes. Each stream has one goroutine that runs DispatchLink from
// its begin to its end: an inbound's goroutine, or the one that Dispatch starts. That
// goroutine admits the stream, and unregisters it when DispatchLink returns, also after a
// panic or a kill.
//
// Order: admit comes before any byte is read, so that a refused stream counts nothing. The
// outbound is chosen later, inside the inner dispatcher: see stream.AttachOutbound.
type Dispatcher struct {
	inner   routing.Dispatcher
	clients *Registry
}

// NewDispatcher makes a Dispatcher around a new dispatcher of xray-core. ctx carries
// xray-core's instance.
func NewDispatcher(ctx context.Context, clients *Registry) (*Dispatcher, error) {
	inner, err := common.CreateObject(ctx, &xdispatcher.Config{})
	if err != nil {
		return nil, err
	}
	return &Dispatcher{inner: inner.(routing.Dispatcher), clients: clients}, nil
}

// Type is the feature of xray-core that Dispatcher is.
func (*Dispatcher) Type() any { return routing.DispatcherType() }

// Start starts xray-core's own dispatcher.
func (d *Dispatcher) Start() error { return d.inner.Start() }

// Close closes xray-core's own dispatcher.
func (d *Dispatcher) Close() error { return d.inner.Close() }

// Dispatch connects two pipes with DispatchLink, so that every stream passes DispatchLink.
// The returned Link.Reader must be a *pipe.Reader: xray-core's common/mux/session.go:188
// requires it.
func (d *Dispatcher) Dispatch(ctx context.Context, destination net.Destination) (*transport.Link, error) {
	if !destination.IsValid() {
		return nil, errors.New("dispatch: the destination is not valid")
	}
	options := pipe.OptionsFromContext(ctx)
	upReader, upWriter := pipe.New(options...)
	downReader, downWriter := pipe.New(options...)
	go func() {
		err := d.DispatchLink(ctx, destination, &transport.Link{Reader: upReader, Writer: downWriter})
		if err != nil {
			common.Interrupt(downWriter)
		} else {
			_ = common.Close(downWriter)
		}
		common.Interrupt(upReader)
	}()
	return &transport.Link{Reader: downReader, Writer: upWriter}, nil
}

// DispatchLink runs a stream and returns when it has ended. A panic in xray-core below it
// ends this stream only, and becomes the error.
func (d *Dispatcher) DispatchLink(ctx context.Context, destination net.Destination, link *transport.Link) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("dispatch %s: panic: %v", destination, r)
			xerrors.LogError(ctx, err.Error(), "\n", string(debug.Stack()))
		}
	}()
	if StreamFrom(ctx) != nil {
		// A loopback outbound sent the stream back, and it is registered already.
		return d.inner.DispatchLink(ctx, destination, link)
	}
	inbound := session.InboundFromContext(ctx)
	s := &stream{reader: link.Reader, writer: link.Writer}
	s.ctx, s.cancel = context.WithCancel(context.WithValue(ctx, streamKey{}, s))
	defer s.cancel()
	if shared := inbound; shared != nil {
		// The streams of one mux connection share one session.Inbound. Without a copy, a
		// value written for one stream (a loopback outbound writes its tag) would change
		// the other streams.
		in := &s.session
		*in = *shared
		s.ctx = session.ContextWithInbound(s.ctx, in)
		if err := d.admit(in, s); err != nil {
			xerrors.LogDebug(ctx, err.Error())
			return err
		}
		s.inbound = shared
		in.CanSpliceCopy = noSplice // what xray-core splices is counted at the end only
		if s.user != nil {
			defer d.clients.close(s)
		} else {
			defer d.clients.closeAnonymous(in.Tag, s)
		}
	}
	s.up, s.down = uplink{Reader: s.reader, stream: s}, downlink{Writer: s.writer, stream: s}
	link.Reader, link.Writer = &s.up, &s.down
	wholeDatagrams(inbound, destination, link)
	return d.inner.DispatchLink(s.ctx, destination, link)
}

// admit finds the client of the stream and registers the stream. If the inbound has no such
// client, it refuses the stream. A stream without an account is registered without a client.
func (d *Dispatcher) admit(in *session.Inbound, s *stream) error {
	s.conn = in.Conn
	s.source = SourceAddress(in.Source)
	s.peer, s.place = netip.AddrPortFrom(s.source, uint16(in.Source.Port)), d.clients.place(s.source)
	if in.Source.Network == net.Network_UDP {
		s.fromDatagrams(in.Name)
	}
	var unknown bool
	if in.User != nil && in.User.Email != "" {
		s.name = in.User.Email
		s.user, unknown = d.clients.lookup(in.Tag, s.name)
	} else if in.Name == wireguard.Name {
		s.user, unknown = d.clients.lookupAddress(in.Tag, s.source)
	}
	var err error
	switch {
	case s.user != nil:
		in.User = named(in.User, s.user.client.Email)
		err = d.clients.open(s)
		if (errors.Is(err, errTooManyIPs) || errors.Is(err, errTooManyStreams)) && d.clients.makeRoom(s) {
			err = d.clients.open(s)
		}
	case unknown:
		err = errNotOfThisClient
	default:
		err = d.clients.openAnonymous(in.Tag, s)
	}
	if err == nil {
		return nil
	}
	d.clients.Refused.add(err)
	s.user = nil
	if in.Conn != nil && (errors.Is(err, errRemoved) || errors.Is(err, errGrantOver) || errors.Is(err, errNotOfThisClient)) {
		_ = in.Conn.Close() // xray-core's RemoveUser leaves mux and QUIC connections open
	}
	return err
}

// named returns user with the client's email, which routing rules match. SOCKS and HTTP give
// a stream the account's name, and WireGuard gives it none. Streams share user, so named
// copies it before it changes it.
func named(user *protocol.MemoryUser, email string) *protocol.MemoryUser {
	if user == nil {
		return &protocol.MemoryUser{Email: email}
	}
	if user.Email == email {
		return user
	}
	renamed := *user
	renamed.Email = email
	return &renamed
}

// SourceAddress returns the IP address of source. An IPv4 address that is mapped into IPv6 is
// returned as IPv4. The zero Addr means that source has no IP address.
func SourceAddress(source net.Destination) netip.Addr {
	if source.Address == nil || !source.Address.Family().IsIP() {
		return netip.Addr{}
	}
	address, _ := netip.AddrFromSlice(source.Address.IP())
	return address.Unmap()
}
