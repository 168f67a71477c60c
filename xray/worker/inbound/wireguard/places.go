package wireguard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// places remembers from which address each peer came last, in a file that the workers of a node map.
// A worker that takes over, or comes after one that crashed, has none of the sessions: it begins the
// handshake with a client that still sends in the session before. The client would notice by itself
// after 15 seconds (KEEPALIVE_TIMEOUT and REKEY_TIMEOUT of the protocol, whitepaper section 6.4).
//
// The file has placeCount entries of placeSize bytes; the hash of the address is the index:
//
//	offset 0   IP address, 16 bytes, and port, two bytes in network byte order
//	offset 18  the peer's public key, 32 bytes
//	offset 50  six bytes of zero
//	offset 56  a hash of the bytes before, eight bytes: another process may write meanwhile
//
// Two addresses with one index displace each other: the client that is displaced waits for 15 seconds.
type places struct {
	mu   sync.Mutex
	data []byte
}

const (
	placeCount = 1 << 14
	placeSize  = 64
	placeBody  = 56
)

// known has the places of this process.
var known places

// Remember maps the file at path, which it makes where there is none. It is called before the first
// New; without it, nothing is remembered.
func Remember(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the file of WireGuard's peers: %w", err)
	}
	defer file.Close()
	const size = placeCount * placeSize
	// The space is allocated at once: a full file system would kill a process that writes.
	if err := unix.Fallocate(int(file.Fd()), 0, 0, size); err != nil {
		return fmt.Errorf("make room for the file of WireGuard's peers: %w", err)
	}
	data, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the file of WireGuard's peers: %w", err)
	}
	known.mu.Lock()
	defer known.mu.Unlock()
	if known.data != nil {
		return errors.Join(errors.New("the file of WireGuard's peers is mapped already"), unix.Munmap(data))
	}
	known.data = data
	return nil
}

func placeKey(at netip.AddrPort) (key [18]byte) {
	ip := at.Addr().As16()
	copy(key[:], ip[:])
	binary.BigEndian.PutUint16(key[16:], at.Port())
	return key
}

// entryLocked returns the bytes of an address's entry; nil where nothing is remembered.
func (p *places) entryLocked(key [18]byte) []byte {
	if p.data == nil {
		return nil
	}
	i := xxhash.Sum64(key[:]) % placeCount * placeSize
	return p.data[i : i+placeSize]
}

// put notes that the peer with the public key came from an address.
func (p *places) put(at netip.AddrPort, public [32]byte) {
	key := placeKey(at)
	var entry [placeSize]byte
	copy(entry[:], key[:])
	copy(entry[18:], public[:])
	binary.NativeEndian.PutUint64(entry[placeBody:], xxhash.Sum64(entry[:placeBody]))
	p.mu.Lock()
	defer p.mu.Unlock()
	copy(p.entryLocked(key), entry[:])
}

// find returns the public key of the peer that came from an address last.
func (p *places) find(at netip.AddrPort) (public [32]byte, is bool) {
	key := placeKey(at)
	p.mu.Lock()
	defer p.mu.Unlock()
	entry := p.entryLocked(key)
	if entry == nil || [18]byte(entry) != key || binary.NativeEndian.Uint64(entry[placeBody:]) != xxhash.Sum64(entry[:placeBody]) {
		return public, false
	}
	return [32]byte(entry[18:]), true
}
