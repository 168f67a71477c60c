package hysteria

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/apernet/quic-go"
	"github.com/apernet/quic-go/http3"
	"github.com/apernet/quic-go/quicvarint"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/transport/internet/hysteria"
	"github.com/xtls/xray-core/transport/internet/hysteria/congestion"
	"github.com/xtls/xray-core/transport/internet/hysteria/congestion/bbr"

	"nodeagent/xray/worker/transport/listen"
)

// visitor is one connection. It is a client once it has sent a right auth. mu guards known, user and
// idle.
type visitor struct {
	listener *listener
	conn     *quic.Conn

	mu    sync.Mutex
	idle  *time.Timer // ends the connection of a stranger that asks for nothing more; stopped once known is true
	known bool
	user  *protocol.MemoryUser // nil where the auth is the transport's
}

// newVisitor is called for each connection. The caller calls gone when the connection has ended.
func newVisitor(l *listener, conn *quic.Conn) (v *visitor, gone func()) {
	idle := time.AfterFunc(listen.Idle, func() { _ = conn.CloseWithError(noError, "") })
	v = &visitor{listener: l, conn: conn, idle: idle}
	return v, func() {
		idle.Stop()
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.user != nil {
			l.settings.conns.remove(v.user.Email, conn)
		}
	}
}

// ServeHTTP answers the request with which a client shows its auth, and everything else with
// the masquerade.
func (v *visitor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	if !v.known {
		v.idle.Reset(listen.Idle)
	}
	v.mu.Unlock()
	isAuth := r.Method == http.MethodPost && r.Host == hysteria.URLHost && r.URL.Path == hysteria.URLPath
	if !isAuth || !v.enters(r) {
		v.listener.masquerade.ServeHTTP(w, r)
		return
	}
	header := w.Header()
	header.Set(hysteria.ResponseHeaderUDPEnabled, strconv.FormatBool(v.listener.settings.clients != nil))
	header.Set(hysteria.CommonHeaderCCRX, strconv.FormatUint(v.listener.params.BrutalDown, 10))
	header.Set(hysteria.CommonHeaderPadding, hysteria.AuthResponsePadding.String())
	w.WriteHeader(hysteria.StatusAuthOK)
}

// enters reports whether the visitor is a client, and makes it one where its auth is right.
func (v *visitor) enters(r *http.Request) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known {
		return true
	}
	auth, settings := r.Header.Get(hysteria.RequestHeaderAuth), v.listener.settings
	if settings.clients != nil && settings.clients.NotEmpty() {
		if v.user = settings.clients.Get(auth); v.user != nil {
			settings.conns.add(v.user.Email, v.conn)
			if settings.clients.Get(auth) == nil { // removed before Clients.End could find the connection
				go func() { _ = v.conn.CloseWithError(noError, "") }()
			}
		}
		v.known = v.user != nil
	} else {
		v.known = settings.Auth != "" && auth == settings.Auth
	}
	if !v.known {
		settings.refused()
		return false
	}
	v.idle.Stop()
	down, _ := strconv.ParseUint(r.Header.Get(hysteria.CommonHeaderCCRX), 10, 64) // 0 means that the client does not say
	v.control(down)
	if settings.clients != nil {
		serveDatagrams(v.conn, v.user, settings.UdpIdleTimeout, v.listener.accept)
	}
	return true
}

// control chooses the congestion control. down is how many bytes in a second the client can
// take, 0 for unknown.
func (v *visitor) control(down uint64) {
	params := v.listener.params
	switch params.Congestion {
	case "reno":
	case "force-brutal":
		congestion.UseBrutal(v.conn, params.BrutalUp)
	case "", "brutal":
		if params.BrutalUp != 0 && down != 0 {
			congestion.UseBrutal(v.conn, min(params.BrutalUp, down))
			return
		}
		fallthrough
	default:
		congestion.UseBBR(v.conn, bbr.Profile(params.BbrProfile))
	}
}

// dispatch takes the streams that a client opens for TCP; those of HTTP/3 are left to the
// server of HTTP/3.
func (v *visitor) dispatch(kind http3.FrameType, stream *quic.Stream, err error) (taken bool, _ error) {
	v.mu.Lock()
	known, user := v.known, v.user
	v.mu.Unlock()
	if err != nil || !known || kind != hysteria.FrameTypeTCPRequest {
		return false, nil //nolint:nilerr // the server of HTTP/3 handles the stream, and its error
	}
	if _, err := quicvarint.Read(quicvarint.NewReader(stream)); err != nil { // the type again
		return false, err
	}
	v.listener.accept(&streamConn{stream, v.conn.LocalAddr(), v.conn.RemoteAddr(), user})
	return true, nil
}

// streamConn is a proxied stream as xray-core's proxy for Hysteria takes it.
type streamConn struct {
	*quic.Stream
	local, remote net.Addr
	user          *protocol.MemoryUser
}

// User is the client of the stream, nil where the auth is the transport's.
func (c *streamConn) User() *protocol.MemoryUser { return c.user }

func (c *streamConn) Close() error {
	c.CancelRead(0)
	return c.Stream.Close()
}

func (c *streamConn) LocalAddr() net.Addr  { return c.local }
func (c *streamConn) RemoteAddr() net.Addr { return c.remote }
