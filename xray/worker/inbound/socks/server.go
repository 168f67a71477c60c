package socks

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"nodeagent/xray/worker/traffic"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/common/session"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/features/policy"
	"github.com/xtls/xray-core/features/routing"
	"github.com/xtls/xray-core/proxy"
	"github.com/xtls/xray-core/proxy/http"
	"github.com/xtls/xray-core/proxy/socks"
	"github.com/xtls/xray-core/transport"
	"github.com/xtls/xray-core/transport/internet/stat"
)

// Server serves SOCKS 4, 4a and 5 (RFC 1928, RFC 1929), and HTTP on the same port. It
// replaces xray-core's inbound; the package comment says why.
type Server struct {
	config       *socks.ServerConfig
	policies     policy.Manager
	cone         bool
	http         *http.Server
	associations *Associations
}

// New makes an inbound. ctx carries xray-core's instance; associations outlive the inbound.
func New(ctx context.Context, config *socks.ServerConfig, associations *Associations) (*Server, error) {
	s := &Server{
		config:       config,
		policies:     core.MustFromContext(ctx).GetFeature(policy.ManagerType()).(policy.Manager),
		cone:         ctx.Value("cone").(bool), // xray-core's own key
		associations: associations,
	}
	web := &http.ServerConfig{UserLevel: config.UserLevel}
	if s.asksForAccounts() {
		if web.Accounts = config.Accounts; len(web.Accounts) == 0 { // xray-core would ask for no account
			web.Accounts = map[string]string{rand.Text(): rand.Text()}
		}
	}
	var err error
	if s.http, err = http.NewServer(ctx, web); err != nil {
		return nil, fmt.Errorf("make socks inbound: its HTTP: %w", err)
	}
	return s, nil
}

func (s *Server) asksForAccounts() bool { return s.config.AuthType == socks.AuthType_PASSWORD }

// Network returns TCP, and UDP where the settings ask for it.
func (s *Server) Network() []net.Network {
	if s.config.UdpEnabled {
		return []net.Network{net.Network_TCP, net.Network_UDP}
	}
	return []net.Network{net.Network_TCP}
}

// Process serves one connection, or the datagrams of one source, to its end.
func (s *Server) Process(ctx context.Context, network net.Network, conn stat.Connection, dispatcher routing.Dispatcher) error {
	inbound := session.InboundFromContext(ctx)
	inbound.Name = "socks"
	inbound.User = &protocol.MemoryUser{Level: s.config.UserLevel}
	if network == net.Network_UDP {
		return s.datagrams(ctx, inbound, conn, dispatcher)
	}
	if err := conn.SetReadDeadline(time.Now().Add(s.policies.ForLevel(s.config.UserLevel).Timeouts.Handshake)); err != nil {
		return fmt.Errorf("bound the handshake: %w", err)
	}
	version := make([]byte, 1)
	if _, err := io.ReadFull(conn, version); errors.Is(err, io.EOF) {
		return nil // a port scan or a health check
	} else if err != nil {
		return fmt.Errorf("read the version of SOCKS: %w", err)
	}
	if version[0] != socks4 && version[0] != socks5 {
		return s.http.ProcessWithFirstbyte(ctx, network, conn, dispatcher, version...)
	}
	reader := &buf.BufferedReader{Reader: buf.NewReader(conn)}
	request, err := s.handshake(version[0], reader, conn, s.bound(inbound, conn))
	if err != nil {
		return fmt.Errorf("SOCKS handshake: %w", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("end the bound of the handshake: %w", err)
	}
	inbound.User.Email = request.account
	if request.associates {
		return s.associate(inbound, request, conn, reader)
	}
	if _, err := conn.Write(request.granted); err != nil {
		return fmt.Errorf("grant a SOCKS request: %w", err)
	}
	if proxy.IsRAWTransportWithoutSecurity(conn) {
		inbound.CanSpliceCopy = 1 // as xray-core's own does (proxy/socks/server.go:154)
	}
	return dispatcher.DispatchLink(ctx, request.to, &transport.Link{Reader: reader, Writer: buf.NewWriter(conn)})
}

// bound returns the two addresses that replies contain: the inbound's, and the one to which
// clients send datagrams.
func (s *Server) bound(inbound *session.Inbound, conn net.Conn) [2]net.Destination {
	port := inbound.Gateway.Port
	forDatagrams := net.DestinationFromAddr(conn.LocalAddr()).Address
	if s.config.Address != nil {
		forDatagrams = s.config.Address.AsAddress()
	}
	return [2]net.Destination{net.TCPDestination(inbound.Gateway.Address, port), net.UDPDestination(forDatagrams, port)}
}

// associate keeps the client's association until the client's TCP connection ends.
func (s *Server) associate(inbound *session.Inbound, request socksRequest, conn net.Conn, reader io.Reader) error {
	end, err := s.associations.begin(inbound.Tag, &Association{
		account: request.account, password: request.password, client: traffic.SourceAddress(inbound.Source), port: request.to.Port.Value(), at: inbound.Gateway.Port.Value(), control: conn, peer: sourcePort(inbound),
	})
	if err != nil {
		return err
	}
	defer end()
	if _, err := conn.Write(request.granted); err != nil { // only now may datagrams come
		return fmt.Errorf("grant a SOCKS request: %w", err)
	}
	_, err = io.Copy(buf.DiscardBytes, reader)
	return err
}

// sourcePort returns the address and port from which a client's datagrams come.
func sourcePort(inbound *session.Inbound) netip.AddrPort {
	return netip.AddrPortFrom(traffic.SourceAddress(inbound.Source), inbound.Source.Port.Value())
}
