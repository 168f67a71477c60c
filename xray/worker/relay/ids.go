package relay

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"

	"github.com/apernet/quic-go"
)

const (
	// idLength is the length of a connection id in bytes: one block of AES.
	idLength = aes.BlockSize
	zeros    = 7
)

// derive makes a key of one purpose out of the key that the workers of a node share.
func derive(key []byte, purpose string) []byte {
	sum := hmac.New(sha256.New, key)
	_, _ = sum.Write([]byte(purpose)) // never fails
	return sum.Sum(nil)
}

// ids makes and reads connection ids. It implements quic.ConnectionIDGenerator.
type ids struct {
	block cipher.Block
	lane  byte
}

func newIDs(key []byte, lane int) (*ids, error) {
	block, err := aes.NewCipher(derive(key, "connection ids")[:16])
	return &ids{block, byte(lane)}, err
}

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (i *ids) GenerateConnectionID() (quic.ConnectionID, error) {
	var id [idLength]byte
	id[0] = i.lane
	_, _ = rand.Read(id[1+zeros:]) // never fails
	i.block.Encrypt(id[:], id[:])
	return quic.ConnectionIDFromBytes(id[:]), nil
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (*ids) ConnectionIDLen() int { return idLength }

const (
	longHeader = 0x80 // RFC 9000 section 17.2
)

// laneOf returns the lane of the worker to which a datagram of QUIC belongs. It returns false for one
// that has no connection id of this node's workers: a client makes the id of its first packets.
func (i *ids) laneOf(datagram []byte) (lane int, is bool) {
	if len(datagram) == 0 {
		return 0, false
	}
	id := datagram[1:]
	if datagram[0]&longHeader != 0 { // version, length of the id, id (RFC 9000 section 17.2)
		if len(datagram) < 6 || datagram[5] != idLength {
			return 0, false
		}
		id = datagram[6:]
	}
	if len(id) < idLength {
		return 0, false
	}
	var plain [idLength]byte
	i.block.Decrypt(plain[:], id[:idLength])
	if [zeros]byte(plain[1:]) != [zeros]byte{} {
		return 0, false
	}
	return int(plain[0]), true
}

// begins reports whether a datagram, which has no connection id of a worker, may begin a connection.
func begins(datagram []byte) bool {
	return len(datagram) > 0 && datagram[0]&longHeader != 0
}
