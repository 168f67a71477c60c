package wireguard

import (
	"bufio"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

const (
	// answerWait is how long the device has to send something to the source of a packet of a session,
	// before the session counts as one of a worker that is gone.
	answerWait = 50 * time.Millisecond
	// askAgain is after which time the handshake is begun again. The device itself begins no more than
	// one in five seconds with a peer (device.RekeyTimeout).
	askAgain = time.Second
	// lookEvery is how old the knowledge may be which peers have a session with this device.
	lookEvery = time.Second
	// noteWait is how long sent collects handshakes before it looks at all peers.
	noteWait = time.Second
)

// arrived looks at a packet's head. Where the packet belongs to a session and its source has got nothing
// of this device, the device begins a handshake with the peer that came from there last.
func (s *Server) arrived(head byte, from *endpoint) {
	if head != device.MessageTransportType || from.answered.Load() {
		return
	}
	now := time.Now().UnixNano()
	asked := from.asked.Load()
	if now-asked < int64(askAgain) || !from.asked.CompareAndSwap(asked, now) {
		return
	}
	time.AfterFunc(answerWait, func() { s.handshake(from) })
}

// handshake begins a handshake with the peer that came from an address last.
func (s *Server) handshake(with *endpoint) {
	defer s.guard()
	if with.answered.Load() {
		return
	}
	public, is := known.find(with.at)
	if !is || s.hasMet(public) {
		return
	}
	if peer := s.device.LookupPeer(public); peer != nil {
		peer.SetEndpointFromPacket(with)
		_ = peer.SendHandshakeInitiation(false) // the device logs an error
	}
}

// hasMet reports whether a peer has completed a handshake with this device. The packets of its session say
// where the peer is then: one that anybody can send must not move it.
func (s *Server) hasMet(public [32]byte) bool {
	s.meeting.Lock()
	defer s.meeting.Unlock()
	if time.Since(s.looked) > lookEvery {
		s.look()
	}
	return s.met[public]
}

// sent looks at a packet for a peer: after each handshake it is noted where the peers are.
func (s *Server) sent(head byte, to *endpoint) {
	if head == device.MessageTransportType {
		to.answered.Store(true)
		return
	}
	if head == device.MessageResponseType && s.noting.CompareAndSwap(false, true) {
		time.AfterFunc(noteWait, func() {
			defer s.guard()
			s.noting.Store(false)
			s.meeting.Lock()
			defer s.meeting.Unlock()
			s.look()
		})
	}
}

// look remembers where all peers are, and which have completed a handshake. The device tells it in the
// text of its configuration protocol alone (https://www.wireguard.com/xplatform/#configuration-protocol).
// The caller holds meeting.
func (s *Server) look() {
	s.looked = time.Now()
	text, err := s.device.IpcGet()
	if err != nil {
		return // the device has ended
	}
	clear(s.met)
	var public [32]byte
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "=")
		switch name {
		case "public_key":
			if _, err := hex.Decode(public[:], []byte(value)); err != nil {
				return
			}
		case "endpoint":
			if at, err := netip.ParseAddrPort(value); err == nil {
				known.put(at, public)
			}
		case "last_handshake_time_sec":
			if value != "0" {
				s.met[public] = true
			}
		}
	}
}
