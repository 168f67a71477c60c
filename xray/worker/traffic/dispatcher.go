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

// noSplice is xray-core's word for "never hand the sockets to the kernel"
// (session.Inbound.CanSpliceCopy): spliced bytes would be counted at the end
// of a connection only.
const noSplice = 3

// Dispatcher stands before xray-core's own: every stream passes it, so it is
// where bytes are counted, clients are told and removed, and limits hold.
type Dispatcher struct {
	inner   routing.Dispatcher
	clients *Registry
}

// NewDispatcher makes a dispatcher before a new one of xray-core's, whose instance ctx carries.
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

// Dispatch makes its own pipes and runs DispatchLink, so that a stream has one
// path and one exact end. The reader given back stays a *pipe.Reader:
// xray-core's common/mux/session.go:188 insists on it.
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

// DispatchLink runs a stream to its end. A panic below it ends that stream
// alone.
func (d *Dispatcher) DispatchLink(ctx context.Context, destination net.Destination, link *transport.Link) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("dispatch %s: panic: %v", destination, r)
			xerrors.LogError(ctx, err.Error(), "\n", string(debug.Stack()))
		}
	}()
	if StreamFrom(ctx) != nil {
		// It came through here before: a loopback outbound sent it back in.
		return d.inner.DispatchLink(ctx, destination, link)
	}
	s := &stream{reader: link.Reader, writer: link.Writer}
	s.ctx, s.cancel = context.WithCancel(context.WithValue(ctx, streamKey{}, s))
	defer s.cancel()
	if shared := session.InboundFromContext(ctx); shared != nil {
		// The streams of a mux carrier share one: what is written into it (a
		// loopback outbound writes its tag) would be the others' too.
		in := new(*shared)
		s.ctx = session.ContextWithInbound(s.ctx, in)
		if err := d.admit(in, s); err != nil {
			xerrors.LogDebug(ctx, err.Error())
			return err
		}
		in.CanSpliceCopy = noSplice
		if s.user != nil {
			defer d.clients.close(s)
		} else {
			defer d.clients.closeAnonymous(in.Tag, s)
		}
	}
	link.Reader = &uplink{Reader: s.reader, stream: s}
	// The outermost writer must be exactly a *SizeStatWriter: xray-core's
	// proxy/proxy.go looks for it where it hands sockets to the kernel.
	link.Writer = &xdispatcher.SizeStatWriter{Counter: downCounter{s}, Writer: &downlink{Writer: s.writer, stream: s}}
	return d.inner.DispatchLink(s.ctx, destination, link)
}

// admit opens the stream, as its client's where it has one.
func (d *Dispatcher) admit(in *session.Inbound, s *stream) error {
	s.conn = in.Conn
	s.source = SourceAddress(in.Source)
	var strange bool
	if in.User != nil && in.User.Email != "" {
		s.name = in.User.Email
		s.user, strange = d.clients.lookup(in.Tag, s.name)
	} else if in.Name == wireguard.Name {
		s.user, strange = d.clients.lookupAddress(in.Tag, s.source)
	}
	var err error
	switch {
	case s.user != nil:
		in.User = named(in.User, s.user.client.Email)
		err = d.clients.open(s)
	case strange:
		err = errNotOfThisClient
	default:
		err = d.clients.openAnonymous(in.Tag, s)
	}
	if err == nil {
		return nil
	}
	d.clients.Refused.add(err)
	s.user = nil
	if in.Conn != nil && (errors.Is(err, errRemoved) || errors.Is(err, errNotOfThisClient)) {
		_ = in.Conn.Close() // a mux or QUIC carrier outlives RemoveUser
	}
	return err
}

// named gives a stream its client's name, which routing rules go by: SOCKS and HTTP
// know an account by its own, and WireGuard knows none. The user is shared.
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

// SourceAddress returns the IP address of a source, IPv4 never mapped into IPv6; the zero
// Addr where it has none.
func SourceAddress(source net.Destination) netip.Addr {
	if source.Address == nil || !source.Address.Family().IsIP() {
		return netip.Addr{}
	}
	address, _ := netip.AddrFromSlice(source.Address.IP())
	return address.Unmap()
}
