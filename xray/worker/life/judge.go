package life

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// unanswered is how many segments in a row got no answer, at least, before a peer is
	// taken for gone.
	unanswered = 3
	// halfClosed is how long, where keepalive is off, a peer may keep a connection open that has
	// our last byte, without sending anything. It is what the kernel waits where no program
	// holds the socket any more (tcp(7), tcp_fin_timeout).
	halfClosed = time.Minute
)

// keepAliveOptions are the socket options of a connection.
type keepAliveOptions struct {
	on                    int // 0 or 1
	idle, interval, count int // seconds; a number
}

// patience is how long keepalive waits for a peer of whom nothing is heard.
func (k keepAliveOptions) patience() time.Duration {
	return time.Duration(k.idle+k.interval*k.count) * time.Second
}

// suspect tells whether verdict may say that the connection is over. It needs no options.
func suspect(info *unix.TCPInfo) bool {
	return info.Unacked > 0 || info.Probes > 0 || hasSentLast(info.State)
}

// isOver tells whether nothing can be expected of the peer any more: it has answered neither
// what was sent nor the question whether there is room again, or it keeps half of a
// connection open that has no other half.
//
// The kernel asks for room up to two minutes apart, and every answer counts as a sign of life:
// Last_ack_recv (in milliseconds) and Probes (unanswered ones) begin again with each.
func isOver(info *unix.TCPInfo, keep keepAliveOptions) bool {
	longest := halfClosed
	if keep.on != 0 {
		longest = keep.patience()
		if since(info.Last_ack_recv) >= longest &&
			(info.Unacked > 0 && info.Retransmits >= unanswered || info.Unacked == 0 && info.Probes >= unanswered) {
			return true
		}
	}
	return hasSentLast(info.State) && min(since(info.Last_data_recv), since(info.Last_data_sent)) >= longest
}

// since returns a time of TCPInfo, which has milliseconds.
func since(milliseconds uint32) time.Duration { return time.Duration(milliseconds) * time.Millisecond }

// The states of RFC 9293 section 3.3.2 as Linux numbers them (include/net/tcp_states.h).
const (
	stateFinWait2 = 5
	stateClose    = 7
)

// hasSentLast tells whether the peer has our last byte, and has not sent its own.
func hasSentLast(state uint8) bool { return state == stateFinWait2 }
