package socks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/proxy/socks"
)

// These constants are from RFC 1928, RFC 1929 and the specification of SOCKS 4.
const (
	socks4 = 4
	socks5 = 5

	withoutAccount   = 0x00
	withPassword     = 0x02
	noMethod         = 0xff
	passwordVersion  = 0x01
	passwordAccepted = 0x00
	passwordRefused  = 0xff

	commandConnect   = 0x01
	commandAssociate = 0x03

	replySucceeded = 0x00
	replyNoCommand = 0x07
	reply4Granted  = 90
	reply4Rejected = 91
)

// connects are the commands of SOCKS 5 that connect. As in xray-core, Tor's RESOLVE (0xf0) and
// RESOLVE_PTR (0xf1) are among them.
var connects = []byte{commandConnect, 0xf0, 0xf1}

// socksAddress is an address and port as SOCKS 5 writes them.
var socksAddress = protocol.NewAddressParser(
	protocol.AddressFamilyByte(0x01, net.AddressFamilyIPv4),
	protocol.AddressFamilyByte(0x03, net.AddressFamilyDomain),
	protocol.AddressFamilyByte(0x04, net.AddressFamilyIPv6),
)

// socksRequest is what a client asks for.
type socksRequest struct {
	account    string // empty if the inbound asks for no account
	password   string
	associates bool            // the client wants to send datagrams (UDP ASSOCIATE)
	to         net.Destination // with associates, the source of the datagrams; zeros if the client does not know it
	granted    []byte          // the reply that grants the request; the caller sends it
}

// handshake reads the client's request. The version byte has been read already. handshake
// sends all replies except the one that grants the request. bound is as Server.bound returns
// it.
func (s *Server) handshake(version byte, r io.Reader, w io.Writer, bound [2]net.Destination) (socksRequest, error) {
	if version == socks4 {
		return s.handshake4(r, w)
	}
	var request socksRequest
	var err error
	if request.account, request.password, err = s.authenticate(r, w); err != nil {
		return socksRequest{}, err
	}
	var head [3]byte // version, command, reserved
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return request, fmt.Errorf("read request: %w", err)
	}
	tell := bound[0]
	switch command := head[1]; {
	case command == commandAssociate && s.config.UdpEnabled:
		request.associates, tell = true, bound[1]
	case slices.Contains(connects, command):
	default:
		_, err := w.Write(reply5(replyNoCommand, net.TCPDestination(net.AnyIP, 0)))
		return request, errors.Join(fmt.Errorf("the inbound does not support command %d", command), err)
	}
	address, port, err := socksAddress.ReadAddressPort(nil, r)
	if err != nil {
		return request, fmt.Errorf("read address: %w", err)
	}
	request.to, request.granted = net.TCPDestination(address, port), reply5(replySucceeded, tell)
	return request, nil
}

// authenticate chooses a method. It returns the client's account if the inbound asks for one.
func (s *Server) authenticate(r io.Reader, w io.Writer) (name, password string, err error) {
	var count [1]byte
	if _, err := io.ReadFull(r, count[:]); err != nil {
		return "", "", fmt.Errorf("read methods: %w", err)
	}
	methods := make([]byte, count[0])
	if _, err := io.ReadFull(r, methods); err != nil {
		return "", "", fmt.Errorf("read methods: %w", err)
	}
	want := byte(withoutAccount)
	if s.asksForAccounts() {
		want = withPassword
	}
	if !bytes.Contains(methods, []byte{want}) {
		_, err := w.Write([]byte{socks5, noMethod})
		return "", "", errors.Join(fmt.Errorf("the client offers no method %d", want), err)
	}
	if _, err := w.Write([]byte{socks5, want}); err != nil || want == withoutAccount {
		return "", "", err
	}
	name, password, err = socks.ReadUsernamePassword(r)
	if err != nil {
		return "", "", fmt.Errorf("read account: %w", err)
	}
	if !s.config.HasAccount(name, password) {
		_, err := w.Write([]byte{passwordVersion, passwordRefused})
		return "", "", errors.Join(errors.New("no such account, or another password"), err)
	}
	_, err = w.Write([]byte{passwordVersion, passwordAccepted})
	return name, password, err
}

// handshake4 grants only CONNECT, and only if the inbound asks for no account: SOCKS 4 has no
// accounts.
func (s *Server) handshake4(r io.Reader, w io.Writer) (request socksRequest, err error) {
	var head [7]byte // command, port, address
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return request, fmt.Errorf("read request: %w", err)
	}
	port, address := net.PortFromBytes(head[1:3]), net.IPAddress(head[3:7])
	if _, err := socks.ReadUntilNull(r); err != nil {
		return request, fmt.Errorf("read user id: %w", err)
	}
	if head[3] == 0 { // SOCKS 4a, a name comes in the address's place
		name, err := socks.ReadUntilNull(r)
		if err != nil {
			return request, fmt.Errorf("read name: %w", err)
		}
		address = net.ParseAddress(name)
	}
	if s.asksForAccounts() || head[0] != commandConnect {
		_, err := w.Write(reply4(reply4Rejected))
		return request, errors.Join(fmt.Errorf("SOCKS 4, command %d: SOCKS 4 has no accounts, and only connecting is supported", head[0]), err)
	}
	request.to, request.granted = net.TCPDestination(address, port), reply4(reply4Granted)
	return request, nil
}

// reply4 has no address, because clients ignore it.
func reply4(code byte) []byte { return []byte{0, code, 7: 0} }

func reply5(code byte, bound net.Destination) []byte {
	reply := []byte{socks5, code, 0}
	switch address := bound.Address; {
	case address.Family().IsDomain():
		reply = append(append(reply, 0x03, byte(len(address.Domain()))), address.Domain()...)
	case address.Family().IsIPv4():
		reply = append(append(reply, 0x01), address.IP()...)
	default:
		reply = append(append(reply, 0x04), address.IP()...)
	}
	return binary.BigEndian.AppendUint16(reply, bound.Port.Value())
}
