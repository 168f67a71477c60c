package xhttp

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// answerWait is how long another worker may take to say whether it takes a request.
	answerWait = 2 * time.Second
	// answerMargin is for the way of the answer: a worker takes no request later than that before the
	// sender gives up. The request would come to its session twice.
	answerMargin = 100 * time.Millisecond
)

// monotonic is the time since a moment that is the same in all processes of the host.
func monotonic() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it fails for an unknown clock alone
	return time.Duration(now.Nano())
}

// outcome says whether a worker takes a request.
type outcome int

const (
	notTaken outcome = iota // it does not have the session, or has ended
	noAnswer                // nobody knows
	answered                // it does, and the client has its answer
)

// A request goes to another worker as a POST of HTTP/1.1 over a unix socket of its own, so that one that
// nobody reads holds up no other. The fields below say what it was; its other header and its body are as
// they came. The other worker answers 100 (Continue) once it takes the request, and nothing of the body is
// sent before. 421 (Misdirected Request) says that it does not take it.
const (
	fieldKind    = "Node-Agent-Kind"
	fieldLane    = "Node-Agent-Lane" // of the worker that sends it
	fieldHops    = "Node-Agent-Hops"
	fieldUntil   = "Node-Agent-Until"   // when the sender gives up, as monotonic counts
	fieldAddress = "Node-Agent-Address" // of the listener, as strconv.Quote makes it
	fieldMethod  = "Node-Agent-Method"
	fieldTarget  = "Node-Agent-Target"
	fieldHost    = "Node-Agent-Host"
	fieldProto   = "Node-Agent-Proto"
	fieldRemote  = "Node-Agent-Remote" // the client's address
	fieldLocal   = "Node-Agent-Local"  // the address of the client's connection at this end, quoted
)

var fields = []string{fieldKind, fieldLane, fieldHops, fieldUntil, fieldAddress, fieldMethod, fieldTarget, fieldHost, fieldProto, fieldRemote, fieldLocal}

// The kinds of requests.
const (
	kindListens = "listens" // an announcement: the sender listens at the address
	kindKnown   = "known"   // of a client: it is the other worker's, if that has its session
	kindNew     = "new"     // of a client: the other worker decides whose it is
)

// ofOneConnection are fields about one connection (RFC 9110 section 7.6.1).
var ofOneConnection = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect"}

func (x *workers) request(ctx context.Context, lane int, kind, address string) *http.Request {
	r := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: "http", Host: strconv.Itoa(lane), Path: "/"}, Body: http.NoBody,
		Header: http.Header{"User-Agent": {""}}, // none, rather than Go's
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	r.Header.Set(fieldKind, kind)
	r.Header.Set(fieldLane, strconv.Itoa(x.reached.Lane()))
	r.Header.Set(fieldAddress, strconv.QuoteToASCII(address))
	return r
}

// passedRequest makes what goes to another worker of a client's request.
func (x *workers) passedRequest(ctx context.Context, r *http.Request, lane int, kind, address string, hops int) (*http.Request, *heldBody) {
	passed, header := x.request(ctx, lane, kind, address), r.Header.Clone()
	for _, name := range ofOneConnection {
		header.Del(name)
	}
	for name, values := range passed.Header {
		if _, has := header[name]; !has || name != "User-Agent" {
			header[name] = values
		}
	}
	header.Set(fieldHops, strconv.Itoa(hops))
	header.Set(fieldUntil, strconv.FormatInt(int64(monotonic()+answerWait-answerMargin), 10))
	header.Set(fieldMethod, r.Method)
	header.Set(fieldTarget, r.RequestURI)
	header.Set(fieldHost, r.Host)
	header.Set(fieldProto, r.Proto)
	header.Set(fieldRemote, r.RemoteAddr)
	header.Set(fieldLocal, "")
	if local, is := r.Context().Value(http.LocalAddrContextKey).(net.Addr); is {
		header.Set(fieldLocal, strconv.QuoteToASCII(local.String()))
	}
	body := &heldBody{from: r.Body}
	if r.ContentLength != 0 {
		passed.Body, passed.ContentLength = body, r.ContentLength
		header.Set("Expect", "100-continue")
	}
	passed.Header = header
	return passed, body
}

// passing is a client's request on its way to another worker.
type passing struct {
	x     *workers
	asked func() // is called once the other worker has answered or is late
	late  *time.Timer
	body  *heldBody
	conn  *workerConn // is set by one goroutine, before the answer
	taken atomic.Bool
	full  atomic.Bool // the other worker takes it, and there was no room
}

func (p *passing) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if conn, is := info.Conn.(*workerConn); is {
				if p.conn != nil {
					p.conn.carries(nil)
				}
				p.conn = conn
				conn.carries(p.body)
			}
		},
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			if p.taken.Load() {
				return nil
			}
			if !p.late.Stop() {
				return errLate
			}
			select {
			case p.x.room <- struct{}{}:
				p.taken.Store(true)
				p.asked()
				return nil
			default:
				p.full.Store(true)
				return errFull
			}
		},
	})
}

func (p *passing) end(result outcome) {
	if p.conn != nil {
		p.conn.carries(nil)
	}
	if p.taken.Load() {
		<-p.x.room
	}
	// http.Transport may still read, and must not once the handler has returned. Go's server waits for the
	// rest of a request that is answered.
	if kept := p.body.keep(); p.body.from != http.NoBody && (!kept || result == answered) {
		p.body.stop()
	}
}

// pass passes a client's request to another worker, and its answer to the client.
func (x *workers) pass(w http.ResponseWriter, r *http.Request, lane int, kind, address string, hops int) (result outcome) {
	if x.hangs(lane) {
		return noAnswer
	}
	if kind == kindNew && len(x.room) == cap(x.room) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return answered
	}
	select {
	case x.asking <- struct{}{}:
	default:
		return noAnswer
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	p := &passing{x: x, asked: sync.OnceFunc(func() { <-x.asking }), late: time.AfterFunc(answerWait, func() { cancel(errLate) })}
	defer p.late.Stop()
	request, body := x.passedRequest(ctx, r, lane, kind, address, hops)
	p.body, body.client = body, http.NewResponseController(w)
	_ = body.client.EnableFullDuplex() // HTTP/2 always is
	if client, is := r.Context().Value(connKey{}).(*conn); is && r.ProtoMajor == 1 {
		body.conn = client
	}
	defer func() { p.end(result) }()
	answer, err := x.transport.RoundTrip(request.WithContext(p.trace(ctx)))
	p.asked()
	switch {
	case p.full.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
		return answered
	case err == nil:
		defer answer.Body.Close()
		if !p.taken.Load() && body.keep() {
			return notTaken
		}
		result = answered // also where it panics
		answerTo(w, body.client, answer)
		return answered
	case errors.Is(context.Cause(ctx), errLate):
		x.noteHung(lane)
	}
	switch {
	case p.taken.Load() || !body.keep():
		w.WriteHeader(http.StatusBadGateway)
		return answered
	case gone(err):
		return notTaken
	}
	return noAnswer
}

// gone reports whether an error says that a worker has ended, or has never listened for others.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

const copyBuffer = 16 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// answerTo gives a client the answer of another worker. Where that ends early, the client's request
// ends with an error.
func answerTo(w http.ResponseWriter, client *http.ResponseController, answer *http.Response) {
	for _, name := range ofOneConnection {
		answer.Header.Del(name)
	}
	maps.Copy(w.Header(), answer.Header)
	w.WriteHeader(answer.StatusCode)
	_ = client.Flush()
	buffer := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buffer)
	for {
		n, err := answer.Body.Read(buffer[:])
		if n > 0 {
			if _, wrong := w.Write(buffer[:n]); wrong != nil {
				return
			}
			_ = client.Flush()
		}
		switch err {
		case nil:
		case io.EOF:
			return
		default:
			panic(http.ErrAbortHandler)
		}
	}
}

// ServeHTTP takes a request of another worker.
func (x *workers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	address, err := strconv.Unquote(r.Header.Get(fieldAddress))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var from origin
	if from.lane, err = strconv.Atoi(r.Header.Get(fieldLane)); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	kind := r.Header.Get(fieldKind)
	if kind == kindListens {
		x.follow(w, r, lanePlace{from.lane, address})
		return
	}
	passed, err := passedBy(r)
	if err == nil {
		from.hops, err = strconv.Atoi(r.Header.Get(fieldHops))
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	fit := x.places.at(address)
	if until, err := strconv.ParseInt(r.Header.Get(fieldUntil), 10, 64); err == nil && monotonic() > time.Duration(until) {
		fit = nil // nobody waits for it
	}
	if len(fit) == 0 || kind != kindKnown && kind != kindNew {
		misdirected(w)
		return
	}
	_ = http.NewResponseController(w).EnableFullDuplex()
	for _, place := range fit {
		if owner, done := place.known(passed, nil); owner != nil {
			defer done()
			w.WriteHeader(http.StatusContinue)
			owner.requests.ServeHTTP(w, passed)
			return
		}
	}
	if kind == kindKnown {
		misdirected(w)
		return
	}
	at := max(slices.IndexFunc(fit, func(place *sharedPlace) bool { return place.serves(passed) }), 0)
	w.WriteHeader(http.StatusContinue)
	if !fit[at].serve(w, passed, nil, from) {
		w.WriteHeader(http.StatusNotFound)
	}
}

// misdirected says that this worker does not take a request. On a connection that goes on, Go's client would
// send the body all the same.
func misdirected(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusMisdirectedRequest)
}

// passedBy returns the request that a client has sent to another worker.
func passedBy(r *http.Request) (*http.Request, error) {
	ctx := r.Context()
	if text := r.Header.Get(fieldLocal); text != "" {
		text, err := strconv.Unquote(text)
		if err != nil {
			return nil, err
		}
		ctx = context.WithValue(ctx, http.LocalAddrContextKey, addressOf(text))
	}
	passed := r.WithContext(ctx)
	passed.Method, passed.RequestURI = r.Header.Get(fieldMethod), r.Header.Get(fieldTarget)
	passed.Host, passed.RemoteAddr = r.Header.Get(fieldHost), r.Header.Get(fieldRemote)
	passed.Proto = r.Header.Get(fieldProto)
	passed.ProtoMajor, passed.ProtoMinor, _ = http.ParseHTTPVersion(passed.Proto)
	var err error
	if passed.URL, err = url.ParseRequestURI(passed.RequestURI); err != nil {
		return nil, err
	}
	passed.Header = r.Header.Clone()
	for _, name := range append(fields, "Expect") {
		passed.Header.Del(name)
	}
	return passed, nil
}

// addressOf returns the address of a TCP socket or else of a unix socket.
func addressOf(text string) net.Addr {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return net.TCPAddrFromAddrPort(at)
	}
	return &net.UnixAddr{Name: text, Net: "unix"}
}
