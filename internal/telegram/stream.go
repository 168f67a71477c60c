package telegram

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"slices"
)

// initSize is the length of the handshake in bytes. The handshake is the first message of
// the side that opens a stream.
const initSize = 64

// paddedIntermediate is the tag of the transport that clients in secure mode ask for.
var paddedIntermediate = [4]byte{0xdd, 0xdd, 0xdd, 0xdd}

// reserved are first four bytes that a handshake must not have: proxies and data centres
// would take them for another protocol.
var reserved = []uint32{
	0x44414548, 0x54534f50, 0x20544547, 0xeeeeeeee, 0xdddddddd, 0x02010316, // HEAD, POST, "GET ", TLS
}

// newInit makes a handshake that asks for a data centre. The data centres of Telegram's test
// network have negative numbers.
func newInit(centre int16) [initSize]byte {
	var n [initSize]byte
	for {
		_, _ = rand.Read(n[:]) // never fails
		first, second := binary.LittleEndian.Uint32(n[:]), binary.LittleEndian.Uint32(n[4:])
		if n[0] != 0xef && !slices.Contains(reserved, first) && second != 0 {
			break
		}
	}
	copy(n[56:], paddedIntermediate[:])
	binary.LittleEndian.PutUint16(n[60:], uint16(centre))
	return n
}

// streams returns the two ciphers of a handshake: out for what the sender of the handshake
// writes, in for what it reads. secret is empty between a proxy and a data centre.
func streams(n [initSize]byte, secret []byte) (out, in cipher.Stream) {
	backwards := slices.Clone(n[8:56])
	slices.Reverse(backwards)
	return stream(n[8:40], n[40:56], secret), stream(backwards[:32], backwards[32:], secret)
}

func stream(key, iv, secret []byte) cipher.Stream {
	if len(secret) > 0 {
		sum := sha256.Sum256(slices.Concat(key, secret))
		key = sum[:]
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key is always of 32 bytes
	}
	return cipher.NewCTR(block, iv)
}

// conn is a connection that decrypts what is read and encrypts what is written.
type conn struct {
	net.Conn
	out, in cipher.Stream
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.XORKeyStream(p[:n], p[:n])
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	sealed := make([]byte, len(p))
	c.out.XORKeyStream(sealed, p)
	return c.Conn.Write(sealed)
}

// CloseWrite tells the other end that no more bytes come.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
