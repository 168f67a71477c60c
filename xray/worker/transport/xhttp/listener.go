package xhttp

import (
	"context"
	"crypto/rand"
	gotls "crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/xray/worker/transport/listen"

	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/transport/internet"
	"github.com/xtls/xray-core/transport/internet/splithttp"
	"github.com/xtls/xray-core/transport/internet/tls"
)

const (
	// xhttpHeaderWait bounds the reading of a request's headers, as xray-core does.
	xhttpHeaderWait = 4 * time.Second
	// xhttpSessionWait is after how long xray-core forgets a session that is not whole.
	xhttpSessionWait = 30 * time.Second
)

// listener serves an inbound over XHTTP on HTTP/1.1 and HTTP/2, in the place of
// xray-core's listener and with that one's handler of requests. The requests of one session
// come on several connections, and xray-core's listener knows its own sessions alone: where
// another one took its place, those that were open got nothing any more.
type listener struct {
	config   *splithttp.Config
	requests http.Handler
	sessions *sync.Map // of the requests' handler, by id

	socket net.Listener
	server http.Server
	open   conns
	place  *sharedPlace
	closed atomic.Bool
	// withdraw tells other workers that this one listens no longer.
	withdraw func()
}

// Listen returns once it listens. Port 0 means a unix socket.
func Listen(ctx context.Context, address net.Address, port net.Port, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (internet.Listener, error) {
	handle = listen.Deadlines(handle)
	config := tls.ConfigFromStreamSettings(stream)
	if config != nil && isHTTP3(config.GetTLSConfig()) {
		return listenHTTP3(ctx, address, port, stream, handle)
	}
	l := &listener{config: stream.ProtocolSettings.(*splithttp.Config)}
	at := listen.Address(address, port)
	var err error
	if l.requests, l.sessions, err = borrowHandler(ctx, stream, handle); err != nil {
		return nil, err
	}
	if l.socket, err = listen.Stream(ctx, "XHTTP", at, stream); err != nil {
		return nil, err
	}
	if config != nil {
		l.socket = listen.TLS(l.socket, config.GetTLSConfig(), xhttpHeaderWait, listen.Refused(stream))
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // the server sees what is inside of TLS
	l.server = http.Server{
		Handler: l, ReadHeaderTimeout: xhttpHeaderWait, MaxHeaderBytes: l.config.GetNormalizedServerMaxHeaderBytes(), Protocols: protocols,
		IdleTimeout: listen.Idle,
	}
	listen.CountRefused(&l.server, stream)
	begin := l.server.ConnContext
	l.server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(begin(ctx, conn), connKey{}, conn)
	}
	l.begin(placeOf(at))
	l.open.Listener, l.open.none = l.socket, func() {
		if l.closed.Load() {
			l.place.tidy()
		}
	}
	go func() {
		if err := l.server.Serve(&l.open); err != nil && !l.closed.Load() {
			xerrors.LogErrorInner(ctx, err, "serve XHTTP on ", at.String())
		}
	}()
	return l, nil
}

// begin puts the listener among those of an address, in this worker and for the others.
func (l *listener) begin(address string) {
	l.place = allPlaces.join(address, l)
	l.withdraw = allPlaces.workers.Load().announce(address, l.served())
}

// end is called once the listener takes no new connections. It returns false where it was called before.
func (l *listener) end() bool {
	if l.closed.Swap(true) {
		return false
	}
	l.withdraw()
	go l.untilOver()
	return true
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// placeOf is the same for all who listen on an address one after the other: of a unix socket
// without what is random in its name.
func placeOf(address net.Addr) string {
	name := address.String()
	if address.Network() == "unix" && filepath.IsAbs(name) {
		name = name[:max(strings.LastIndex(name, listen.BeforeRandom), 0)]
	}
	return name
}

// isHTTP3 tells XHTTP over QUIC, as xray-core does.
func isHTTP3(config *gotls.Config) bool {
	return len(config.NextProtos) == 1 && config.NextProtos[0] == "h3"
}

// borrowHandler gets xray-core's handler of requests, and the sessions that it keeps. It
// makes them with a listener of its own alone, and exports neither: so one listens, for a
// moment and on a name that nobody knows, and its members are looked up. A member that is
// another one than that of the version for which this was written is an error.
func borrowHandler(ctx context.Context, stream *internet.MemoryStreamConfig, handle internet.ConnHandler) (http.Handler, *sync.Map, error) {
	plain := *stream
	plain.SecurityType, plain.SecuritySettings, plain.TcpmaskManager = "", nil, nil
	lender, err := splithttp.ListenXH(ctx, net.DomainAddress("@"+rand.Text()), 0, &plain, handle)
	if err != nil {
		return nil, nil, fmt.Errorf("make a handler of XHTTP: %w", err)
	}
	if err := lender.Close(); err != nil {
		return nil, nil, fmt.Errorf("make a handler of XHTTP: %w", err)
	}
	server, err := listen.MemberOf[http.Server](lender, "server")
	if err != nil {
		return nil, nil, err
	}
	sessions, err := listen.MemberOf[sync.Map](server.Handler, "sessions")
	return server.Handler, sessions, err
}

// ServeHTTP hands a request to the owner of its session. A new one that came by an open connection to a
// listener that is closed, and to no other one's path, is told to try anew.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if conn, is := r.Context().Value(connKey{}).(*conn); is && r.ProtoMajor == 1 {
		if l.serves(r) {
			l.open.hold(conn)
		}
		packet := l.packet(r)
		conn.answers.ofPacket.Store(packet)
		if packet {
			ctx, done := outlive(r.Context())
			defer done()
			r = r.WithContext(ctx)
		}
	}
	if !l.place.serve(w, r, l, aClient) {
		w.Header().Set("Connection", "close") // of HTTP/2 too: the client is told to go away
		w.WriteHeader(http.StatusNotFound)
	}
}

// serves tells whether a request could be the listener's.
func (l *listener) serves(r *http.Request) bool {
	return l.served().serves(r)
}

func (l *listener) served() servedPath {
	return servedPath{l.config.Host, l.config.GetNormalizedPath()}
}

// session is the id of a request's, empty where it has none.
func (l *listener) session(r *http.Request) string {
	if !l.serves(r) {
		return ""
	}
	id, _ := l.config.ExtractMetaFromRequest(r, l.config.GetNormalizedPath())
	return id
}

// part is which part of a session a request is.
type part int

const (
	begins    part = iota // it may be the first one
	continues             // another one came before it, or is on its way at the same time
	alone                 // it has no session, or is the only request of its own
	foreign               // no listener of this worker serves its path
)

// part tells a request that continues a session. A client sends its packets (packet-up) with numbers from 0
// on, and its one long upload (stream-up) after the request for the download
// (transport/internet/splithttp/dialer.go).
func (l *listener) part(r *http.Request) part {
	if !l.serves(r) {
		return foreign
	}
	switch id, number := l.config.ExtractMetaFromRequest(r, l.config.GetNormalizedPath()); {
	case id == "":
		return alone
	case number == "" && r.Method != http.MethodGet, number != "" && number != "0":
		return continues
	}
	return begins
}

// packet tells whether a request is a packet of a session.
func (l *listener) packet(r *http.Request) bool {
	if !l.serves(r) {
		return false
	}
	id, number := l.config.ExtractMetaFromRequest(r, l.config.GetNormalizedPath())
	return id != "" && number != ""
}

// has tells whether a request belongs to one of the listener's sessions.
func (l *listener) has(r *http.Request) bool {
	_, has := l.sessions.Load(l.session(r))
	return has
}

// Close ends the listening at once. Open connections go on, and their sessions. Where another worker took
// the address over, the clients of HTTP/2 are asked to connect with that one.
func (l *listener) Close() error {
	if !l.end() {
		return nil
	}
	if l.place.of.workers.Load().followed(l.place.address) {
		l.open.goAway()
	}
	return l.socket.Close()
}

// untilOver forgets the listener once it is over: nobody tells when xray-core forgets a
// session that was never whole.
func (l *listener) untilOver() {
	for l.place.tidy(); !l.over(); l.place.tidy() {
		time.Sleep(xhttpSessionWait)
	}
}

func (l *listener) Addr() net.Addr { return l.socket.Addr() }

// over tells that it listens no more, and nobody is left of those who came.
func (l *listener) over() bool {
	if !l.closed.Load() || l.open.count() > 0 {
		return false
	}
	empty := true
	l.sessions.Range(func(any, any) bool { empty = false; return false })
	return empty
}
