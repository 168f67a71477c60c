package relay

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
)

// Lane returns the number of this worker. No other worker of the node that lives has it.
func (r *Relay) Lane() int { return r.table.Lane() }

// Others returns the numbers of the other workers of the node that live.
func (r *Relay) Others() []int { return r.table.Living() }

// ListenStreams listens for streams of other workers, which serve one purpose.
func (r *Relay) ListenStreams(purpose string) (net.Listener, error) {
	socket, err := bind(r.streams(purpose, r.table.Lane()))
	if err != nil {
		return nil, fmt.Errorf("listen for %s of other workers: %w", purpose, err)
	}
	return &streamListener{socket}, nil
}

// DialStream opens a stream to the worker with the number lane.
func (r *Relay) DialStream(ctx context.Context, purpose string, lane int) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialUnix(ctx, "unix", nil, r.streams(purpose, lane))
	if err != nil {
		return nil, err
	}
	if err := checkUser(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

func (r *Relay) streams(purpose string, lane int) *net.UnixAddr {
	return &net.UnixAddr{Name: fmt.Sprintf("@node-agent-%s-%s-%d", purpose, hex.EncodeToString(derive(r.key, "socket")[:8]), lane), Net: "unix"}
}

// streamListener accepts connections of processes of the same user.
type streamListener struct{ *net.UnixListener }

func (l *streamListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if checkUser(conn) == nil {
			return conn, nil
		}
		_ = conn.Close()
	}
}
