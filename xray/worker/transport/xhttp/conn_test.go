package xhttp

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"testing"
)

// listenHTTP2 serves a handler on the connections of a listener. It returns them, and a client of HTTP/2
// that counts the connections it opens.
func listenHTTP2(t *testing.T, handler http.HandlerFunc) (*conns, *http.Transport, func() int) {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := &conns{Listener: socket, none: func() {}}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler, Protocols: protocols}
	go func() { _ = server.Serve(open) }()
	t.Cleanup(func() { _ = server.Close() })
	var mu sync.Mutex
	dialed := 0
	client := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		dialed++
		var d net.Dialer
		return d.DialContext(ctx, "tcp", socket.Addr().String())
	}}
	t.Cleanup(client.CloseIdleConnections)
	return open, client, func() int { mu.Lock(); defer mu.Unlock(); return dialed }
}

// A client of HTTP/2 that is asked to go away sends its next requests over another connection. Those that
// are open go on to their ends, also one whose body has no second copy.
func TestGoAwayLosesNoRequest(t *testing.T) {
	open, client, _ := listenHTTP2(t, echo)
	request := func(body io.Reader) (*http.Response, net.Addr) {
		t.Helper()
		var by net.Addr
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { by = info.Conn.LocalAddr() }})
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://site.test/", body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		return answer, by
	}
	reader, writer := io.Pipe()
	first, before := request(reader)
	defer first.Body.Close()
	open.goAway()
	// The client's next requests leave the connection as soon as it has read the frame.
	for {
		answer, by := request(bytes.NewReader([]byte("x")))
		if text, err := io.ReadAll(answer.Body); err != nil || string(text) != "x" {
			t.Fatalf("a request after it is answered with %q: %v", text, err)
		}
		_ = answer.Body.Close()
		if by.String() != before.String() {
			break
		}
	}
	for range 3 {
		if _, err := writer.Write([]byte("more")); err != nil {
			t.Fatalf("the request that was open: %v", err)
		}
		back := make([]byte, 4)
		if _, err := io.ReadFull(first.Body, back); err != nil || string(back) != "more" {
			t.Fatalf("the request that was open got %q: %v", back, err)
		}
	}
	_ = writer.Close()
	if rest, err := io.ReadAll(first.Body); err != nil || len(rest) > 0 {
		t.Errorf("the request that was open ends with %q: %v", rest, err)
	}
}

// A connection that is handed on after its listener was closed is asked to go away too, and its first
// requests are served.
func TestGoAwayOfANewConnection(t *testing.T) {
	open, client, dialed := listenHTTP2(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	open.goAway()
	for range 5 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://site.test/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
	}
	if dialed() < 2 {
		t.Error("the client was not asked")
	}
}

// The frame comes between two others, in whatever parts those are written.
func FuzzGoAway(f *testing.F) {
	frame := func(kind, flags byte, payload string) string {
		return string([]byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, 1}) + payload
	}
	settings, data := frame(4, 0, "123456"), frame(0, 1, "some data")
	block := frame(typeHeaders, 0, "head") + frame(typeContinuation, 0, "er") + frame(typeContinuation, flagEndHeaders, "")
	f.Add([]byte(settings+block+data), uint16(3), uint16(1))
	f.Add([]byte(settings+data+data+block), uint16(40), uint16(7))
	f.Add([]byte(block), uint16(0), uint16(100))
	f.Fuzz(func(t *testing.T, written []byte, at, part uint16) {
		var out recorder
		c := &conn{Conn: &out}
		c.http2.Store(true)
		for rest := written; len(rest) > 0; {
			if len(written)-len(rest) >= int(at) && !out.asked {
				out.asked = true
				c.goAway()
			}
			n := min(len(rest), int(part)+1)
			if wrote, err := c.Write(rest[:n]); wrote != n || err != nil {
				t.Fatalf("%d bytes of %d are written: %v", wrote, n, err)
			}
			rest = rest[n:]
		}
		if before, after, found := bytes.Cut(out.Bytes(), goAwayFrame[:]); found && !bytes.Contains(written, goAwayFrame[:]) {
			var f frames
			f.advance(before, false)
			if !f.between() {
				t.Fatalf("it comes after %x", before)
			}
			if !bytes.Equal(append(bytes.Clone(before), after...), written) {
				t.Fatal("the bytes are other ones")
			}
		} else if !found && !bytes.Equal(out.Bytes(), written) {
			t.Fatal("the bytes are other ones")
		}
	})
}

// recorder keeps what is written.
type recorder struct {
	net.Conn
	bytes.Buffer
	asked bool
}

func (r *recorder) Write(p []byte) (int, error) { return r.Buffer.Write(p) }
func (r *recorder) Read(p []byte) (int, error)  { return r.Buffer.Read(p) }
