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
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// answerWait is how long another worker may take to say whether it takes a request.
const answerWait = 2 * time.Second

// A request goes to another worker as a POST of HTTP/1.1 over a unix socket of its own, so that one that
// nobody reads holds up no other. The fields below say what it was; its other header and its body are as
// they came. The other worker answers 100 (Continue) once it takes the request, and nothing of the body is
// sent before. 421 (Misdirected Request) says that it does not take it.
const (
	fieldKind    = "Node-Agent-Kind"
	fieldLane    = "Node-Agent-Lane" // of the worker that sends it
	fieldHops    = "Node-Agent-Hops"
	fieldAddress = "Node-Agent-Address" // of the listener, as strconv.Quote makes it
	fieldMethod  = "Node-Agent-Method"
	fieldTarget  = "Node-Agent-Target"
	fieldHost    = "Node-Agent-Host"
	fieldProto   = "Node-Agent-Proto"
	fieldRemote  = "Node-Agent-Remote" // the client's address
	fieldLocal   = "Node-Agent-Local"  // the address of the client's connection at this end, quoted
)

var fields = []string{fieldKind, fieldLane, fieldHops, fieldAddress, fieldMethod, fieldTarget, fieldHost, fieldProto, fieldRemote, fieldLocal}

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

// The states of a heldBody.
const (
	bodyHeld int32 = iota // nothing was read
	bodyRead
	bodyKept // nothing was read, nor will be
)

// heldBody is a client's body that goes to another worker once that takes the request.
type heldBody struct {
	from  io.Reader
	state atomic.Int32
	ended atomic.Bool
}

func (b *heldBody) Read(p []byte) (int, error) {
	if !b.state.CompareAndSwap(bodyHeld, bodyRead) && b.state.Load() == bodyKept {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.from.Read(p)
	if err != nil {
		b.ended.Store(true)
	}
	return n, err
}

// Close leaves the client's body open: the server closes it.
func (*heldBody) Close() error { return nil }

// keep reports whether nothing was read. Then nothing will be.
func (b *heldBody) keep() bool { return b.state.CompareAndSwap(bodyHeld, bodyKept) }

// pass passes a client's request to another worker, and its answer to the client. It returns false where
// the other worker does not take it.
func (x *workers) pass(w http.ResponseWriter, r *http.Request, lane int, kind, address string, hops int) bool {
	if x.hangs(lane) {
		return false
	}
	select {
	case x.room <- struct{}{}:
		defer func() { <-x.room }()
	default:
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	var taken atomic.Bool
	late := time.AfterFunc(answerWait, func() { cancel(errLate) })
	defer late.Stop()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		if taken.Load() || late.Stop() {
			taken.Store(true)
			return nil
		}
		return errLate
	}})
	passed, body := x.passedRequest(ctx, r, lane, kind, address, hops)
	client := http.NewResponseController(w)
	_ = client.EnableFullDuplex() // HTTP/2 always is
	answer, err := x.transport.RoundTrip(passed)
	if err != nil {
		if errors.Is(context.Cause(ctx), errLate) {
			x.noteHung(lane)
		}
		if !taken.Load() && body.keep() {
			return false
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	}
	defer answer.Body.Close()
	if !taken.Load() && body.keep() {
		return false
	}
	if r.ProtoMajor == 1 {
		defer func() {
			if !body.ended.Load() && body.state.Load() == bodyRead {
				_ = client.SetReadDeadline(time.Unix(1, 0)) // ends the reading of the body
			}
		}()
	}
	answerTo(w, client, answer)
	return true
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
		x.follow(w, r, from.lane, address)
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
	place := x.places.at(address)
	if place == nil || kind != kindKnown && kind != kindNew {
		misdirected(w)
		return
	}
	_ = http.NewResponseController(w).EnableFullDuplex()
	if kind == kindKnown {
		owner, done := place.known(passed, nil)
		if owner == nil {
			misdirected(w)
			return
		}
		defer done()
		w.WriteHeader(http.StatusContinue)
		owner.requests.ServeHTTP(w, passed)
		return
	}
	w.WriteHeader(http.StatusContinue)
	if !place.serve(w, passed, nil, from) {
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
