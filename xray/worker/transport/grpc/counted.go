package grpc

import (
	"sync/atomic"

	"github.com/xtls/xray-core/common/net"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// countedHandshakes counts the connections whose handshake of TLS fails, and those that end without
// a stream.
type countedHandshakes struct {
	credentials.TransportCredentials
	refused func()
}

func (h countedHandshakes) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := h.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		h.refused()
		return nil, nil, err
	}
	c := &caller{Conn: secure, AuthInfo: info, refused: h.refused}
	return c, c, nil
}

// caller is a connection, and what grpc hands on with each of its streams.
type caller struct {
	net.Conn
	credentials.AuthInfo
	refused func()
	told    atomic.Bool // it has brought a stream, or was counted
}

// Close counts a connection that brought no stream.
func (c *caller) Close() error {
	if !c.told.Swap(true) {
		c.refused()
	}
	return c.Conn.Close()
}

// asked notes that the connection of a stream has brought one.
func asked(stream grpc.ServerStream) {
	if from, has := peer.FromContext(stream.Context()); has {
		if c, is := from.AuthInfo.(*caller); is {
			c.told.Store(true)
		}
	}
}
