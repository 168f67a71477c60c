package telegram

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Dial opens a stream to a centre (1 to 5) through a proxy, in its secure mode,
// and sends the handshake; secret has 16 bytes.
func Dial(proxy string, secret []byte, centre int16) (net.Conn, error) {
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		return nil, fmt.Errorf("reach the proxy: %w", err)
	}
	return Open(c, secret, centre)
}

// Open makes the handshake over a connection to a proxy, which the stream then
// owns.
func Open(c net.Conn, secret []byte, centre int16) (net.Conn, error) {
	n := newInit(centre)
	out, in := streams(n, secret)
	sealed := n
	out.XORKeyStream(sealed[:], sealed[:])
	copy(sealed[:56], n[:56]) // the keys' part travels as it is
	if _, err := c.Write(sealed[:]); err != nil {
		return nil, fmt.Errorf("send the handshake: %w", err)
	}
	return &conn{Conn: c, out: out, in: in}, nil
}

// DialLink opens a stream to a centre as a tg:// or https://t.me/ link of the
// secure (dd) form says.
func DialLink(link string, centre int16) (net.Conn, error) {
	proxy, secret, err := ParseLink(link)
	if err != nil {
		return nil, err
	}
	return Dial(proxy, secret, centre)
}

// ParseLink reads a link of the secure (dd) form: the proxy's address and the
// secret's 16 bytes.
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
