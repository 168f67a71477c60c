package xhttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/xtls/xray-core/transport/internet/finalmask/fragment"
	"github.com/xtls/xray-core/transport/internet/finalmask/header/custom"

	"nodeagent/xray/worker/transport/listen"
)

// masked hides what a connection is, as xray-core's masks do.
type masked struct{ net.Listener }

func (m masked) Accept() (net.Conn, error) {
	conn, err := m.Listener.Accept()
	return struct{ net.Conn }{conn}, err
}

// answering serves packets, each with an answer of 2 KB or so: one of a thousand is refused. It returns how a
// client connects, and how many packets were served.
func answering(t *testing.T, wrap func(net.Listener) net.Listener) (dial func() net.Conn, served *atomic.Int64) {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served = new(atomic.Int64)
	l := newListener("/x")
	l.requests = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Padding", strings.Repeat("X", 2000))
		if served.Add(1)%1000 == 0 {
			w.WriteHeader(http.StatusConflict)
		}
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, "the end")
		}
	})
	all := &places{all: map[string]*sharedPlace{}}
	l.place = all.join("here", l)
	l.open.Listener, l.open.none = wrap(socket), func() {}
	server := &http.Server{Handler: l, ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conn)
	}}
	go func() { _ = server.Serve(&l.open) }()
	t.Cleanup(func() { _ = server.Close() })
	return func() net.Conn {
		small := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
			var wrong error
			if err := raw.Control(func(fd uintptr) {
				wrong = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10)
			}); err != nil {
				return err
			}
			return wrong
		}}
		conn, err := small.Dial("tcp", socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		return conn
	}, served
}

// A client that reads no answer sends packets on, as stock Xray does, however many. One that reads them later
// gets one for each packet, in their order.
func TestAnswersThatNobodyReads(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	const packets = 10_000 // their answers are 20 MB, and the buffers of the sockets have some 4
	for name, row := range map[string]struct {
		wrap func(net.Listener) net.Listener
		over func(net.Conn) net.Conn
	}{
		"plain":  {func(l net.Listener) net.Listener { return l }, func(c net.Conn) net.Conn { return c }},
		"masked": {func(l net.Listener) net.Listener { return masked{l} }, func(c net.Conn) net.Conn { return c }},
		"TLS": {func(l net.Listener) net.Listener {
			return listen.TLS(l, &tls.Config{Certificates: certified.TLS.Certificates}, time.Minute, func() {})
		}, func(c net.Conn) net.Conn { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}) }},
	} {
		t.Run(name, func(t *testing.T) {
			dial, served := answering(t, row.wrap)
			conn := row.over(dial())
			for i := range packets {
				if _, err := fmt.Fprintf(conn, "POST /x/session/%d HTTP/1.1\r\nHost: site.test\r\nContent-Length: 5\r\n\r\nhello", i); err != nil {
					t.Fatalf("packet %d of a client that has read no answer, and %d were served: %v", i, served.Load(), err)
				}
			}
			until(t, "the last packet is served", func() bool { return served.Load() == packets })
			if _, err := io.WriteString(conn, "GET /x/session HTTP/1.1\r\nHost: site.test\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(conn)
			padded := 0
			for i := 1; i <= packets; i++ {
				answer, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatalf("answer %d: %v", i, err)
				}
				_ = answer.Body.Close()
				want := http.StatusOK
				if i%1000 == 0 {
					want = http.StatusConflict
				}
				if answer.StatusCode != want || answer.ContentLength != 0 {
					t.Fatalf("answer %d is %d with %d bytes, want %d", i, answer.StatusCode, answer.ContentLength, want)
				}
				if answer.Header.Get("X-Padding") != "" {
					padded++
				}
			}
			if padded == packets {
				t.Error("all answers fit the buffers of the sockets: the test tries nothing")
			}
			last, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer last.Body.Close()
			if text, err := io.ReadAll(last.Body); err != nil || string(text) != "the end" {
				t.Errorf("the request after them is answered with %q: %v", text, err)
			}
		})
	}
}

// Answers that wait cost a bounded memory, also where no two are alike. Then the server waits for the client.
func TestAnswersThatWaitAreBounded(t *testing.T) {
	near, far := net.Pipe() // takes nothing by itself
	var a answers
	a.ofPacket.Store(true)
	go func() {
		for i := range 10_000 {
			if _, err := a.write(near, fmt.Appendf(nil, "HTTP/1.1 %s\r\nX-Padding: 0000\r\nContent-Length: 0\r\n\r\n", strconv.Itoa(200+i%700))); err != nil {
				t.Errorf("answer %d: %v", i, err)
				return
			}
		}
	}()
	until(t, "the bound", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.size > mostLate+mostShortened-100
	})
	a.mu.Lock()
	size := 0
	for _, answer := range a.late {
		size += len(answer.text)
	}
	if size != a.size || size > mostLate+mostShortened {
		t.Errorf("%d bytes wait, and %d are counted", size, a.size)
	}
	a.mu.Unlock()
	in := bufio.NewReader(far)
	for i := range 10_000 {
		answer, err := http.ReadResponse(in, nil)
		if err != nil || answer.StatusCode != 200+i%700 {
			t.Fatalf("answer %d is %+v, %v", i, answer, err)
		}
		_ = answer.Body.Close()
	}
	_ = near.Close()
	for range 2 {
		if _, err := a.write(near, []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")); err != nil {
			t.Errorf("an answer to a packet that has come, on a connection that has ended: %v", err)
		}
	}
	if _, err := a.write(near, []byte("HTTP/1.1 200 OK\r\n")); err == nil {
		t.Error("another answer on a connection that has ended is written")
	}
}

// What the socket has not sent is known below TLS, the PROXY protocol and masks that change nothing after their
// first bytes.
func TestUnacknowledged(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	plain, err := net.Dial("tcp", socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	header, err := custom.NewConnServerTCP(&custom.TCPConfig{}, plain)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := fragment.NewConnServer(&fragment.Config{}, plain, true)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		conn net.Conn
		want int
	}{
		"plain":                        {plain, 0},
		"TLS":                          {tls.Server(plain, nil), 0},
		"PROXY protocol":               {proxyproto.NewConn(plain), 0},
		"TLS over PROXY protocol":      {tls.Server(proxyproto.NewConn(plain), nil), 0},
		"a mask with a header":         {header, 0},
		"a mask that parts the stream": {parts, -1},
		"one that nobody knows":        {struct{ net.Conn }{plain}, -1},
	} {
		if got := unacknowledged(row.conn); got != row.want {
			t.Errorf("%s: %d, want %d", name, got, row.want)
		}
	}
}

// Packets that have come are served where their client has closed the connection with answers unread, which
// is a reset, in this worker and through another one.
func TestPacketsOfAConnectionThatIsReset(t *testing.T) {
	const packets = 20
	closed, answered := make(chan struct{}), make(chan struct{})
	n := newTestNode(t)
	first := n.worker(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if strings.HasSuffix(r.URL.Path, "/1") {
			close(answered)
			<-closed
		}
	})
	first.post("/x/a/first", "")
	<-first.handled
	second := n.worker(readAll)
	for name, came := range map[string]*testWorker{"its worker": first, "another one": second} {
		t.Run(name, func(t *testing.T) {
			closed, answered = make(chan struct{}), make(chan struct{})
			conn, err := net.Dial("tcp", came.clients.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			for i := range packets {
				if _, err := fmt.Fprintf(conn, "POST /x/a/%d HTTP/1.1\r\nHost: site.test\r\nContent-Length: 5\r\n\r\nhello", i); err != nil {
					t.Fatal(err)
				}
			}
			<-answered // the first one; the client has the answer and does not read it
			until(t, "all has come", func() bool { return unacknowledged(conn) == 0 })
			_ = conn.Close()
			close(closed)
			for i := range packets {
				select {
				case r := <-first.handled:
					if want := fmt.Sprintf("/x/a/%d", i); r.URL.Path != want {
						t.Fatalf("%s is served, want %s", r.URL.Path, want)
					}
				case <-time.After(time.Minute):
					t.Fatalf("packet %d has come, and is not served", i)
				}
			}
		})
	}
}

// An answer that may wait is a header without a body, and whole.
func TestHeaderAlone(t *testing.T) {
	for text, want := range map[string]bool{
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Padding: X\r\n\r\n":            true,
		"HTTP/1.1 200 OK\r\nX-Padding: X\r\nContent-Length: 0\r\n\r\n":            true,
		"HTTP/1.1 200 OK\r\nX-Padding: X\r\nContent-Length: 1\r\n\r\n":            false,
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\nContent-Length: 0\r\n\r\n": false,
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Padding: X":                    false,
		"HTTP/1.1 100 Continue\r\n\r\n":                                           false,
		"":                                                                        false,
	} {
		if got := isHeaderAlone([]byte(text)); got != want {
			t.Errorf("%q: %t, want %t", text, got, want)
		}
	}
}
