package shadowsocks

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	gonet "net"
	"slices"
	"sync"

	"github.com/sagernet/sing-shadowsocks/shadowaead"
	"github.com/sagernet/sing-shadowsocks/shadowaead_2022"
	"github.com/sagernet/sing/common/auth"
	singbuf "github.com/sagernet/sing/common/buf"
	"github.com/sagernet/sing/common/metadata"
	"github.com/sagernet/sing/common/network"
	"github.com/xtls/xray-core/common/buf"
	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/common/singbridge"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/proxy/shadowsocks_2022"
	"github.com/xtls/xray-core/transport"
	"github.com/xtls/xray-core/transport/internet/stat"
)

// Name is session.Inbound.Name of the inbound's streams, as of xray-core's own.
const Name = "shadowsocks-2022-multi"

// udpIdle is how long a client's datagrams keep their way out, in seconds; as in
// xray-core (proxy/shadowsocks_2022/inbound_multi.go).
const udpIdle = 500

// Server serves Shadowsocks 2022 for many clients, in the place of
// xray-core's own inbound, over the same library. xray-core's makes all keys anew for
// each client that comes or goes, and knows clients by their places in a list: a client
// that leaves in the middle of a handshake is taken for the one that gets its place.
type Server struct {
	networks []net.Network
	service  *shadowaead_2022.MultiService[*protocol.MemoryUser]

	// looking guards the keys, which the service itself does not. A lookup holds it for
	// reading, a change for writing.
	looking sync.RWMutex
	users   map[string]*protocol.MemoryUser // by email
}

// New makes an inbound with the users of config.
func New(config *shadowsocks_2022.MultiUserServerConfig) (*Server, error) {
	key, err := base64.StdEncoding.DecodeString(config.Key)
	if err != nil || len(key) == 0 {
		return nil, errors.New("make shadowsocks 2022 inbound: its password is no base64 key")
	}
	s := &Server{networks: config.Network, users: map[string]*protocol.MemoryUser{}}
	if len(s.networks) == 0 {
		s.networks = []net.Network{net.Network_TCP, net.Network_UDP}
	}
	if s.service, err = shadowaead_2022.NewMultiService[*protocol.MemoryUser](config.Method, key, udpIdle, s, nil); err != nil {
		return nil, fmt.Errorf("make shadowsocks 2022 inbound: %w", err)
	}
	users := make([]*protocol.MemoryUser, len(config.Users))
	for i, user := range config.Users {
		if users[i], err = user.ToMemoryUser(); err != nil {
			return nil, fmt.Errorf("make shadowsocks 2022 inbound: client %d: %w", i, err)
		}
	}
	return s, s.addUsers(users)
}

// addUsers adds all or none.
func (s *Server) addUsers(users []*protocol.MemoryUser) error {
	s.looking.Lock()
	defer s.looking.Unlock()
	for i, user := range users {
		if s.users[user.Email] != nil {
			for _, added := range users[:i] {
				delete(s.users, added.Email)
			}
			return fmt.Errorf("client %d is there already", i)
		}
		s.users[user.Email] = user
	}
	err := s.makeKeys()
	if err != nil {
		for _, added := range users {
			delete(s.users, added.Email)
		}
		err = errors.Join(err, s.makeKeys())
	}
	return err
}

func (s *Server) removeUsers(emails []string) error {
	s.looking.Lock()
	defer s.looking.Unlock()
	for _, email := range emails {
		delete(s.users, email)
	}
	return s.makeKeys()
}

func (s *Server) makeKeys() error {
	users, keys := make([]*protocol.MemoryUser, 0, len(s.users)), make([]string, 0, len(s.users))
	for _, email := range slices.Sorted(maps.Keys(s.users)) { // of two with one key always the same one
		users, keys = append(users, s.users[email]), append(keys, s.users[email].Account.(*shadowsocks_2022.MemoryAccount).Key)
	}
	if err := s.service.UpdateUsersWithPasswords(users, keys); err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	return nil
}

// AddUser implements proxy.UserManager.
func (s *Server) AddUser(_ context.Context, user *protocol.MemoryUser) error {
	return s.addUsers([]*protocol.MemoryUser{user})
}

// RemoveUser implements proxy.UserManager.
func (s *Server) RemoveUser(_ context.Context, email string) error {
	return s.removeUsers([]string{email})
}

// GetUser implements proxy.UserManager.
func (s *Server) GetUser(_ context.Context, email string) *protocol.MemoryUser {
	s.looking.RLock()
	defer s.looking.RUnlock()
	return s.users[email]
}

// GetUsers implements proxy.UserManager.
func (s *Server) GetUsers(context.Context) []*protocol.MemoryUser {
	s.looking.RLock()
	defer s.looking.RUnlock()
	users := make([]*protocol.MemoryUser, 0, len(s.users))
	for _, user := range s.users {
		users = append(users, user)
	}
	return users
}

// GetUsersCount implements proxy.UserManager.
func (s *Server) GetUsersCount(context.Context) int64 {
	s.looking.RLock()
	defer s.looking.RUnlock()
	return int64(len(s.users))
}

// Network implements proxy.Inbound.
func (s *Server) Network() []net.Network { return s.networks }

// Process implements proxy.Inbound.
func (s *Server) Process(ctx context.Context, kind net.Network, conn stat.Connection, d routing.Dispatcher) error {
	in := session.InboundFromContext(ctx)
	in.Name = Name
	var from metadata.Metadata
	if in.Source.IsValid() {
		from.Source = metadata.ParseSocksaddr(in.Source.NetAddr())
	}
	ctx = session.ContextWithDispatcher(ctx, d)
	if kind == net.Network_TCP {
		lookup := &lookup{Conn: conn, looking: &s.looking}
		defer lookup.done()
		return singbridge.ReturnError(s.service.NewConnection0(ctx, conn, from, lookup, lookup.done))
	}
	back := datagrams{conn}
	reader := buf.NewReader(conn)
	for {
		mb, err := reader.ReadMultiBuffer()
		for _, b := range mb {
			if refused := s.datagram(ctx, back, b.Bytes(), from); refused != nil {
				buf.ReleaseMulti(mb)
				return refused
			}
		}
		buf.ReleaseMulti(mb)
		if err != nil {
			return singbridge.ReturnError(err)
		}
	}
}

func (s *Server) datagram(ctx context.Context, back network.PacketConn, data []byte, from metadata.Metadata) error {
	s.looking.RLock()
	defer s.looking.RUnlock() // whatever the library makes of it
	packet := singbuf.As(data).ToOwned()
	err := s.service.NewPacket(ctx, back, packet, from)
	if err != nil {
		packet.Release()
	}
	return err
}

// lookup reads a connection's header and holds the keys still from then until the
// client is known. A header comes whole or is refused: to wait for more would tell a
// prober how long it is.
type lookup struct {
	gonet.Conn
	looking *sync.RWMutex
	read    bool
	holds   bool
}

func (l *lookup) Read(p []byte) (int, error) {
	if l.read {
		return 0, shadowaead.ErrBadHeader
	}
	n, err := l.Conn.Read(p)
	l.read, l.holds = true, true
	l.looking.RLock()
	return n, err
}

func (l *lookup) done() {
	if l.holds {
		l.holds = false
		l.looking.RUnlock()
	}
}

// NewConnection implements the library's handler: a client that is known has asked for
// a connection. To encrypt is most of the work: a pipe lets the way out be read
// meanwhile.
func (s *Server) NewConnection(ctx context.Context, conn gonet.Conn, asked metadata.Metadata) error {
	ctx, d, to, err := s.admit(ctx, asked.Destination, net.Network_TCP)
	if err != nil {
		return err
	}
	return d.DispatchLink(ctx, to, &transport.Link{Reader: &chunkReader{conn: conn}, Writer: chunkWriter{conn}})
}

// NewPacketConnection implements the library's handler: a client that is known sends
// datagrams.
func (s *Server) NewPacketConnection(ctx context.Context, conn network.PacketConn, asked metadata.Metadata) error {
	ctx, d, to, err := s.admit(ctx, asked.Destination, net.Network_UDP)
	if err != nil {
		empty(conn)
		return err
	}
	way := newPacketLink(conn, to)
	defer way.end()
	return d.DispatchLink(ctx, to, &transport.Link{Reader: way, Writer: way})
}

// admit tells xray-core which client asks, and returns the destination that it asks for.
func (*Server) admit(ctx context.Context, asked metadata.Socksaddr, network net.Network) (context.Context, routing.Dispatcher, net.Destination, error) {
	user, known := auth.UserFromContext[*protocol.MemoryUser](ctx)
	to, err := singbridge.ToDestination(asked, network)
	if !known || err != nil || !to.IsValid() {
		return nil, nil, to, fmt.Errorf("shadowsocks 2022: a client asks for %q", asked)
	}
	// A socket's clients share what the dispatcher writes: each gets its own.
	in := *session.InboundFromContext(ctx)
	in.User, in.CanSpliceCopy = user, 3 // never: the bytes are encrypted
	ctx = session.ContextWithOutbounds(session.ContextWithInbound(ctx, &in), []*session.Outbound{{}})
	if shared := session.ContentFromContext(ctx); shared != nil {
		ctx = session.ContextWithContent(ctx, &session.Content{SniffingRequest: shared.SniffingRequest})
	}
	return ctx, session.DispatcherFromContext(ctx), to, nil
}

// NewError implements the library's handler.
func (*Server) NewError(ctx context.Context, err error) {
	if singbridge.ReturnError(err) != nil {
		xerrors.LogInfo(ctx, err.Error())
	}
}
