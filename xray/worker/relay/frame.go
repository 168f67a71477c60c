package relay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
)

// A frame carries one datagram over the unix socket, in network byte order:
//
//	length of the rest, two bytes
//	address and port of the listener, 16 and 2 bytes
//	address, port and interface of the client, 16, 2 and 4 bytes
//	length of what the kernel said (control messages, recvmsg(2)), two bytes, and that
//	the datagram
const (
	frameHead  = 2
	frameFixed = 18 + 22 + 2
	// mostControl bounds the control messages, in bytes; quic-go reads 128 (sys_conn_oob.go:26).
	mostControl = 128
	// mostDatagram bounds a datagram with mostControl, in bytes: the length of a frame has two bytes. Without
	// control messages there is room for 65,493 of the 65,507 bytes that UDP over IPv4 carries.
	mostDatagram = mostFrame - frameFixed - mostControl
	mostFrame    = 1<<16 - 1
	// usualFrame is the size with which the buffer of a frame begins.
	usualFrame = frameHead + frameFixed + mostControl + 1500
)

// datagram is what one worker passes to another.
type datagram struct {
	at      netip.AddrPort // of the listener
	from    *net.UDPAddr
	control []byte
	data    []byte
}

// appendFrame appends the frame of a datagram. It returns false for one that is longer than a frame
// may be, or whose client has no address.
func appendFrame(to []byte, d datagram) ([]byte, bool) {
	if len(d.control) > mostControl || frameFixed+len(d.control)+len(d.data) > mostFrame {
		return to, false
	}
	client, is := netip.AddrFromSlice(d.from.IP)
	if !is {
		return to, false
	}
	to = binary.BigEndian.AppendUint16(to, uint16(frameFixed+len(d.control)+len(d.data)))
	to = appendAddress(to, d.at)
	to = appendAddress(to, netip.AddrPortFrom(client, uint16(d.from.Port)))
	to = binary.BigEndian.AppendUint32(to, zoneIndex(d.from.Zone))
	to = binary.BigEndian.AppendUint16(to, uint16(len(d.control)))
	to = append(to, d.control...)
	return append(to, d.data...), true
}

func appendAddress(to []byte, at netip.AddrPort) []byte {
	bytes := at.Addr().As16()
	return binary.BigEndian.AppendUint16(append(to, bytes[:]...), at.Port())
}

var errFrame = errors.New("a frame with datagrams is broken")

// readFrame reads the next datagram. Its slices are valid until the next call with the same buffer,
// which has mostFrame bytes.
func readFrame(from *bufio.Reader, buffer []byte) (d datagram, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return d, err
	}
	length := int(binary.BigEndian.Uint16(head[:]))
	if length < frameFixed || length > len(buffer) {
		return d, fmt.Errorf("%w: it has %d bytes", errFrame, length)
	}
	frame := buffer[:length]
	if _, err := io.ReadFull(from, frame); err != nil {
		return d, err
	}
	control := int(binary.BigEndian.Uint16(frame[frameFixed-2:]))
	if control > length-frameFixed {
		return d, fmt.Errorf("%w: %d of its %d bytes are control messages", errFrame, control, length)
	}
	client := readAddress(frame[18:])
	d.at = readAddress(frame)
	d.from = net.UDPAddrFromAddrPort(client)
	if zone := binary.BigEndian.Uint32(frame[36:]); zone != 0 {
		d.from.Zone = strconv.FormatUint(uint64(zone), 10)
	}
	d.control, d.data = frame[frameFixed:frameFixed+control], frame[frameFixed+control:]
	return d, nil
}

func readAddress(frame []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(frame[:16])).Unmap(), binary.BigEndian.Uint16(frame[16:]))
}

// zoneIndex returns the number of an interface, 0 for none.
func zoneIndex(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if card, err := net.InterfaceByName(zone); err == nil {
		return uint32(card.Index)
	}
	return 0
}
