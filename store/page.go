package store

import (
	"encoding/binary"
	"fmt"
)

// Accounts are stored in pages, so that traffic of ten thousand clients takes some hundred
// writes and not ten thousand. A page has the accounts of 256 slots. Each is four
// little-endian uint64: the counter as it was read last, up and down, and the bytes that are
// in no row yet, up and down.
const (
	pageSlots   = 256
	accountSize = 4 * 8
	pageSize    = pageSlots * accountSize
)

// The bucket of sums has a checksum for each page: a CRC-32C over the page with its number, as
// uint32 big endian, and the same with all bits turned. Versions before the sums would not read a
// longer page, so it does not stand in the page. They write no sums either: the form of the value
// "minute" tells whether the sums are those of the pages (see loadLedgerLocked).
const pageSumSize = 8

// pageSum returns the checksum of an encoded page for the bucket of sums.
func pageSum(key, encoded []byte) []byte {
	sum := sumOf(bucketPages, key, encoded)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, sum), ^sum)
}

// checkPage checks a page with its checksum. A checksum that is damaged itself says nothing.
func checkPage(key, encoded, sum []byte) error {
	if len(sum) != pageSumSize {
		return errSum
	}
	if first := binary.BigEndian.Uint32(sum); first != ^binary.BigEndian.Uint32(sum[4:]) || first == sumOf(bucketPages, key, encoded) {
		return nil
	}
	return errSum
}

// account says how far the counter of a slot is accounted, in bytes.
type account struct {
	rawUp, rawDown         uint64 // the counter at the last read
	pendingUp, pendingDown uint64 // read, but in no row yet
}

// page has the accounts of pageSlots consecutive slots.
type page [pageSlots]account

func (p *page) encode() []byte {
	out := make([]byte, 0, pageSize)
	for i := range p {
		a := &p[i]
		for _, v := range [...]uint64{a.rawUp, a.rawDown, a.pendingUp, a.pendingDown} {
			out = binary.LittleEndian.AppendUint64(out, v)
		}
	}
	return out
}

func decodePage(raw []byte) (*page, error) {
	if len(raw) != pageSize {
		return nil, fmt.Errorf("a page of accounts has %d bytes, want %d", len(raw), pageSize)
	}
	p := new(page)
	for i := range p {
		at := raw[i*accountSize:]
		p[i] = account{
			rawUp: binary.LittleEndian.Uint64(at), rawDown: binary.LittleEndian.Uint64(at[8:]),
			pendingUp: binary.LittleEndian.Uint64(at[16:]), pendingDown: binary.LittleEndian.Uint64(at[24:]),
		}
	}
	return p, nil
}

// read adds what the counter gained since the last read to the pending bytes. A value below
// the last one means that the counter began again at zero.
func (a *account) read(up, down uint64) (gain traffic) {
	gain = traffic{gained(a.rawUp, up), gained(a.rawDown, down)}
	a.pendingUp += gain.up
	a.pendingDown += gain.down
	a.rawUp, a.rawDown = up, down
	return gain
}

func gained(before, now uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

// take returns the pending bytes, and sets them to zero.
func (a *account) take() (up, down uint64) {
	up, down = a.pendingUp, a.pendingDown
	a.pendingUp, a.pendingDown = 0, 0
	return up, down
}
