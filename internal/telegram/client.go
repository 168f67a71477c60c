package telegram

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"strings"
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
	proxy, secret, err := ParseLink(link)
	if err != nil {
		return nil, err
	}
	return Dial(proxy, secret, centre)
}

// ParseLink reads a tg:// or https://t.me/ link whose secret has the secure form (dd and 32
// hex digits). It returns the proxy's host and port and the secret's 16 bytes.
func ParseLink(link string) (proxy string, secret []byte, err error) {
	u, err := url.Parse(link)
	if err != nil {
		return "", nil, fmt.Errorf("read link: %w", err)
	}
	query := u.Query()
	digits, isSecure := strings.CutPrefix(query.Get("secret"), "dd")
	if secret, err = hex.DecodeString(digits); err != nil || !isSecure || len(secret) != 16 {
		return "", nil, fmt.Errorf("read link: its secret is not dd and 32 hex digits")
	}
	return net.JoinHostPort(query.Get("server"), query.Get("port")), secret, nil
}
