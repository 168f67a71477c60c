package wireguard

import (
	"context"
	"errors"
	"fmt"
	gonet "net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xtls/xray-core/common/buf"
	ctxid "github.com/xtls/xray-core/common/ctx"
	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/proxy/wireguard"
	"github.com/xtls/xray-core/transport"
	"github.com/xtls/xray-core/transport/internet/stat"
	"golang.zx2c4.com/wireguard/device"

	"nodeagent/xray/worker/datagrams"
)

// noSplice is the value of session.Inbound.CanSpliceCopy with which xray-core never splices.
const noSplice = 3

// sourceBytes is how many bytes of a client wait until Process takes them, about as many as the kernel keeps of
// a socket (net.core.rmem_default). A source that has no session has xray-core's room. With 64 KiB, an upload costs a tenth more processor time.
const sourceBytes = 256 << 10

// Name is session.Inbound.Name of the streams of this inbound.
const Name = "wireguard"

// Peer is a client. Name is its email in the worker.
type Peer struct {
	Name   string
	Config *wireguard.PeerConfig // keys in hex
}

// Server is an inbound proxy. Its peers change while it serves; Close ends it with all
// their streams.
type Server struct {
	ctx    context.Context // of the inbound: its tag, its sniffing
	tunnel *tunnel
	bind   *bind
	device *device.Device
	// outside has the local address and port on which datagrams arrive. Routing rules may
	// match them.
	outside atomic.Pointer[session.Inbound]
	noting  atomic.Bool // look will run

	meeting sync.Mutex // guards met and looked
	met     map[[32]byte]bool
	looked  time.Time

	mu    sync.Mutex
	keys  map[string]string // public, hex, by the peer's name
	named map[string]int    // how many names a public key has
}

// New makes a device that is up, with the configuration's own peers under their public
// keys' names. ctx is the one in which xray-core makes inbound proxies.
func New(ctx context.Context, config *wireguard.DeviceConfig) (*Server, error) {
	s := &Server{ctx: ctx, keys: map[string]string{}, named: map[string]int{}, met: map[[32]byte]bool{}}
	var err error
	if s.tunnel, err = newTunnel(config, s.connected, s.associated); err != nil {
		return nil, err
	}
	s.bind = newBind(s.arrived, s.sent)
	s.device = device.NewDevice(s.tunnel, s.bind, &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf:   func(format string, args ...any) { xerrors.LogInfo(s.ctx, fmt.Sprintf(format, args...)) },
	})
	err = s.device.IpcSet("private_key=" + config.SecretKey + "\n")
	if err == nil {
		err = s.device.Up()
	}
	if err == nil {
		err = s.addOwnPeers(config)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make wireguard device: %w", err), s.Close())
	}
	return s, nil
}

// addOwnPeers adds the peers that stand in the configuration itself.
func (s *Server) addOwnPeers(config *wireguard.DeviceConfig) error {
	var own []Peer
	for i, user := range config.Users {
		message, err := user.Account.GetInstance()
		if err != nil {
			return fmt.Errorf("read peer %d: %w", i, err)
		}
		peer, ok := message.(*wireguard.PeerConfig)
		if !ok {
			return fmt.Errorf("read peer %d: its account is a %T", i, message)
		}
		own = append(own, Peer{peer.PublicKey, peer})
	}
	return s.AddPeers(own)
}

// AddPeers adds all peers or none.
func (s *Server) AddPeers(peers []Peer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, peer := range peers {
		if err := s.device.IpcSet(ipc(peer.Config)); err != nil {
			s.removeLocked(peers[:i+1])
			return fmt.Errorf("add peer %d: %w", i, err)
		}
		s.forgetLocked(peer.Name)
		s.keys[peer.Name] = peer.Config.PublicKey
		s.named[peer.Config.PublicKey]++
	}
	return nil
}

// RemovePeers ends the peers' sessions. It ignores unknown names. The caller ends the peers'
// streams.
func (s *Server) RemovePeers(names []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var text strings.Builder
	for _, name := range names {
		if key, last := s.forgetLocked(name); last {
			_, _ = fmt.Fprintf(&text, "public_key=%s\nremove=true\n", key)
		}
	}
	if err := s.device.IpcSet(text.String()); err != nil {
		return fmt.Errorf("remove peers: %w", err)
	}
	return nil
}

// removeLocked undoes what AddPeers has done for the peers.
func (s *Server) removeLocked(peers []Peer) {
	for _, peer := range peers {
		s.forgetLocked(peer.Name)
		if s.named[peer.Config.PublicKey] == 0 {
			_ = s.device.IpcSet("public_key=" + peer.Config.PublicKey + "\nremove=true\n")
		}
	}
}

// forgetLocked forgets the name of a peer, and reports whether no other peer has its public key.
func (s *Server) forgetLocked(name string) (key string, last bool) {
	key, known := s.keys[name]
	if !known {
		return "", false
	}
	delete(s.keys, name)
	if s.named[key]--; s.named[key] > 0 {
		return key, false
	}
	delete(s.named, key)
	return key, true
}

// ipc returns a peer in the device's configuration protocol
// (https://www.wireguard.com/xplatform/#configuration-protocol).
func ipc(peer *wireguard.PeerConfig) string {
	var text strings.Builder
	_, _ = fmt.Fprintf(&text, "public_key=%s\nreplace_allowed_ips=true\n", peer.PublicKey)
	if peer.PreSharedKey != "" {
		_, _ = fmt.Fprintf(&text, "preshared_key=%s\n", peer.PreSharedKey)
	}
	if peer.KeepAlive != "" {
		_, _ = fmt.Fprintf(&text, "persistent_keepalive_interval=%s\n", peer.KeepAlive)
	}
	for _, network := range peer.AllowedIps {
		if !strings.Contains(network, "/") {
			if ip, err := netip.ParseAddr(network); err == nil {
				network = netip.PrefixFrom(ip, ip.BitLen()).String()
			}
		}
		_, _ = fmt.Fprintf(&text, "allowed_ip=%s\n", network)
	}
	return text.String()
}

// Close ends the device and every stream in it.
func (s *Server) Close() error {
	s.bind.end()
	s.device.Close() // and the tunnel with it
	return nil
}

// Network implements proxy.Inbound.
func (*Server) Network() []net.Network { return []net.Network{net.Network_UDP} }

// Process implements proxy.Inbound: conn has the datagrams of one source.
func (s *Server) Process(ctx context.Context, _ net.Network, conn stat.Connection, _ routing.Dispatcher) error {
	from, err := newEndpoint(conn)
	if err != nil {
		return err
	}
	room, err := datagrams.RoomOf(conn)
	if err != nil {
		return err
	}
	defer room.Close()
	s.outside.Store(session.InboundFromContext(ctx))
	reader := buf.NewPacketReader(conn)
	for {
		mb, err := reader.ReadMultiBuffer()
		if from.answered.Load() {
			room.Fit(len(mb), mb.Len(), sourceBytes)
		}
		s.bind.received(mb, from)
		if err != nil {
			return err
		}
	}
}

// connected serves a TCP connection that came out of the tunnel.
func (s *Server) connected(conn *connection, client, to netip.AddrPort) {
	defer s.guard()
	defer conn.Close()
	s.dispatch(conn, net.TCPDestination(address(client), net.Port(client.Port())), net.TCPDestination(address(to), net.Port(to.Port())),
		&transport.Link{Reader: conn, Writer: buf.NewWriter(conn)})
}

// associated serves what comes from one UDP port in the tunnel.
func (s *Server) associated(a *association, to netip.AddrPort) {
	defer s.guard()
	defer a.Close()
	s.dispatch(a, net.UDPDestination(address(a.client), net.Port(a.client.Port())), net.UDPDestination(address(to), net.Port(to.Port())),
		&transport.Link{Reader: a, Writer: a})
}

func address(at netip.AddrPort) net.Address { return net.IPAddress(at.Addr().AsSlice()) }

// guard lets a panic end one stream, and not the process.
func (s *Server) guard() {
	if r := recover(); r != nil {
		xerrors.LogError(s.ctx, "panic in a wireguard stream: ", r, "\n", string(debug.Stack()))
	}
}

// dispatch runs a stream to its end. Its source is the address inside the tunnel.
func (s *Server) dispatch(conn gonet.Conn, from, to net.Destination, link *transport.Link) {
	in := session.Inbound{Name: Name, CanSpliceCopy: noSplice, Source: from, Conn: conn}
	if of := s.outside.Load(); of != nil {
		in.Local, in.Gateway = of.Local, of.Gateway
	}
	if of := session.InboundFromContext(s.ctx); of != nil {
		in.Tag = of.Tag
	}
	content := new(session.Content)
	if of := session.ContentFromContext(s.ctx); of != nil {
		content.SniffingRequest = of.SniffingRequest
	}
	ctx, cancel := context.WithCancel(ctxid.ContextWithID(s.ctx, session.NewID()))
	defer cancel()
	ctx = session.ContextWithContent(session.ContextWithInbound(ctx, &in), content)
	d, ok := core.MustFromContext(s.ctx).GetFeature(routing.DispatcherType()).(routing.Dispatcher)
	if !ok {
		return // xray-core has ended
	}
	if err := d.DispatchLink(ctx, to, link); err != nil {
		xerrors.LogInfoInner(ctx, err, "a connection in the tunnel ends")
	}
}
