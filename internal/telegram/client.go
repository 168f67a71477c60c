package telegram

import (
	"fmt"
	"net"
)

// Dial opens a stream to a data centre (1 to 5) through the proxy at a host and port, in the
// secure mode, and sends the handshake. secret has 16 bytes.
func Dial(proxy string, secret []byte, centre int16) (net.Conn, error) {
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		return nil, fmt.Errorf("reach the proxy: %w", err)
	}
	return Open(c, secret, centre)
}

// Open sends the handshake over c, a connection to a proxy or a data centre. The stream owns
// c. secret is empty for a data centre.
func Open(c net.Conn, secret []byte, centre int16) (net.Conn, error) {
	n := newInit(centre)
	out, in := streams(n, secret)
	sealed := n
	out.XORKeyStream(sealed[:], sealed[:])
	copy(sealed[:56], n[:56]) // the first 56 bytes have the keys and are sent unencrypted
	if _, err := c.Write(sealed[:]); err != nil {
		return nil, fmt.Errorf("send the handshake: %w", err)
	}
	return &conn{Conn: c, out: out, in: in}, nil
}

// DialLink opens a stream to a data centre through the proxy of a link (see ParseLink).
func DialLink(link string, centre int16) (net.Conn, error) {
	proxy, err := ParseLink(link)
	if err != nil {
		return nil, err
	}
	if !proxy.Padded || proxy.Domain != "" {
		return nil, fmt.Errorf("read link: its proxy has another mode than the secure one")
	}
	return Dial(proxy.Address, proxy.Secret, centre)
}
