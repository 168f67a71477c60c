package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// stranger is a server for strangers, as the command serve runs it.
type stranger struct {
	address string
	client  *http.Client // speaks HTTP/2
	stop    func() error // ends the server, and returns what it ended with
}

// newStranger starts a server for strangers. hurry may change it before.
func newStranger(t *testing.T, handler http.Handler, hurry func(*http.Server)) stranger {
	t.Helper()
	borrowed := httptest.NewTLSServer(nil)
	t.Cleanup(borrowed.Close)
	server := newServer(handler, borrowed.TLS, slog.New(slog.DiscardHandler))
	if hurry != nil {
		hurry(server)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serveUntil(ctx, []served{{server, listener}}) }()
	stop := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: borrowed.Client().Transport.(*http.Transport).TLSClientConfig}}
	t.Cleanup(client.CloseIdleConnections)
	return stranger{listener.Addr().String(), client, stop}
}

// hurried starts a server for strangers whose times are shorter: a time that is missing stays so.
func hurried(t *testing.T, handler http.Handler) stranger {
	t.Helper()
	return newStranger(t, handler, func(server *http.Server) {
		server.ReadHeaderTimeout /= 20
		server.ReadTimeout /= 100
		server.WriteTimeout /= 600
		server.IdleTimeout /= 240
	})
}

// ends reads what a server says on a connection, and fails the test where the server does not close it.
func ends(t *testing.T, conn net.Conn) (said string) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if os.IsTimeout(err) {
		t.Error("the connection is kept")
	}
	return string(answer)
}

// A stranger that is slow, silent or long-winded is not kept, and neither is an answer that a client does
// not read.
func TestServersBoundStrangers(t *testing.T) {
	gone := make(chan struct{}, 2)
	server := hurried(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/long" {
			_, _ = io.Copy(w, r.Body)
			return
		}
		var err error
		for block := make([]byte, 1<<20); err == nil; {
			_, err = w.Write(block)
		}
		gone <- struct{}{}
	}))
	dial := func(t *testing.T, protocol string) net.Conn {
		t.Helper()
		conn, err := tls.Dial("tcp", server.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	for name, says := range map[string]string{
		"nothing":                 "",
		"half a header":           "GET / HTTP/1.1\r\nHost: a\r\nX: ",
		"half a body":             "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
		"one request and no more": "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, "http/1.1")
			if _, err := io.WriteString(conn, says); err != nil {
				t.Fatal(err)
			}
			ends(t, conn)
		})
	}
	t.Run("HTTP/2 and no more", func(t *testing.T) {
		t.Parallel()
		conn := dial(t, "h2")
		if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		if err := http2.NewFramer(conn, nil).WriteSettings(); err != nil {
			t.Fatal(err)
		}
		ends(t, conn)
	})
	t.Run("nothing of HTTP/2", func(t *testing.T) {
		t.Parallel()
		ends(t, dial(t, "h2"))
	})
	t.Run("no TLS", func(t *testing.T) {
		t.Parallel()
		conn, err := net.Dial("tcp", server.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if said := ends(t, conn); !strings.HasPrefix(said, "HTTP/1.0 400 ") {
			t.Errorf("it says %q", said)
		}
	})
	t.Run("a handshake of TLS that does not come", func(t *testing.T) {
		t.Parallel()
		conn, err := net.Dial("tcp", server.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ends(t, conn)
	})
	t.Run("a long header", func(t *testing.T) {
		t.Parallel()
		conn := dial(t, "http/1.1")
		go func() {
			_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n", strings.Repeat("x", 2*headerBytes))
		}()
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("the answer is %s", answer.Status)
		}
	})
	t.Run("answers that nobody reads", func(t *testing.T) {
		t.Parallel()
		conn := dial(t, "http/1.1")
		if _, err := io.WriteString(conn, "GET /long HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		// HTTP/2: the windows of stream and connection are full, and the client answers pings.
		answer, err := server.client.Get("https://" + server.address + "/long")
		if err != nil || answer.ProtoMajor != 2 {
			t.Fatalf("%v, %v", answer, err)
		}
		defer answer.Body.Close()
		for range 2 {
			select {
			case <-gone:
			case <-time.After(time.Minute):
				t.Fatal("the server still writes")
			}
		}
	})
}

// A server that is to end answers the requests that it has, over each protocol, and takes no new connection.
func TestServersEndWithAnswers(t *testing.T) {
	for name, protocol := range map[string]*http.Protocols{"HTTP/1": protocols((*http.Protocols).SetHTTP1), "HTTP/2": protocols((*http.Protocols).SetHTTP2)} {
		t.Run(name, func(t *testing.T) {
			asked, answer := make(chan struct{}), make(chan struct{})
			server := newStranger(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				close(asked)
				<-answer
				_, _ = io.WriteString(w, "the answer")
			}), nil)
			server.client.Transport.(*http.Transport).Protocols = protocol
			got := server.ask()
			<-asked
			stopped := make(chan error, 1)
			go func() { stopped <- server.stop() }()
			server.awaitClosed(t)
			select {
			case err := <-stopped:
				t.Errorf("it ends with %v before the request is answered", err)
			default:
			}
			close(answer)
			if said := <-got; !strings.HasSuffix(said, " the answer") || !strings.HasPrefix(said, name) {
				t.Errorf("got %q", said)
			}
			if err := <-stopped; err != nil && !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
}

// ask sends a request, and gives the protocol and the text of the answer, or the error.
func (s stranger) ask() <-chan string {
	got := make(chan string, 1)
	go func() {
		answer, err := s.client.Get("https://" + s.address)
		if err != nil {
			got <- err.Error()
			return
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		got <- fmt.Sprint(answer.Proto, " ", string(body))
	}()
	return got
}

// awaitClosed returns once the server's socket is closed, which comes first when it ends.
func (s stranger) awaitClosed(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			return
		}
		_ = conn.Close()
		if time.Now().After(end) {
			t.Fatal("the server that is to end takes connections")
		}
	}
}

// A connection of HTTP/2 that is in its handshake when the server is told to end gets an answer to its first
// request. net/http gives none to one of HTTP/1.
func TestServersEndWithHandshakes(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	server := newStranger(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the answer") }), func(server *http.Server) {
		server.TLSConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			close(begun)
			<-goOn
			return nil, nil
		}
	})
	got := server.ask()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- server.stop() }()
	server.awaitClosed(t)
	close(goOn)
	if said := <-got; said != "HTTP/2.0 the answer" {
		t.Errorf("got %q", said)
	}
	if err := <-stopped; err != nil && !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// A handshake that does not come keeps a server that is to end for a moment only.
func TestServersEndWithoutSilentHandshakes(t *testing.T) {
	accepted := make(chan struct{})
	server := newStranger(t, http.NotFoundHandler(), func(server *http.Server) {
		server.ReadHeaderTimeout = time.Hour
		server.TLSConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { close(accepted); return nil, nil }
	})
	silent, err := net.Dial("tcp", server.address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	// A client's first message, and nothing after it.
	hello := tls.Client(onlyWrites{silent}, &tls.Config{InsecureSkipVerify: true})
	go func() { _ = hello.Handshake() }()
	<-accepted
	if err := server.stop(); err != nil && !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("it ends with %v", err)
	}
}

// onlyWrites is a connection that reads nothing until it is closed.
type onlyWrites struct{ net.Conn }

func (onlyWrites) Read([]byte) (int, error) { select {} }

// A handshake that panics ends its connection, and not the server.
func TestServersOutliveHandshakesThatPanic(t *testing.T) {
	var first sync.Once
	server := newStranger(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the answer") }), func(server *http.Server) {
		server.TLSConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			first.Do(func() { panic("as CVE-2022-41724 did") })
			return nil, nil
		}
	})
	if conn, err := tls.Dial("tcp", server.address, &tls.Config{InsecureSkipVerify: true}); err == nil {
		_ = conn.Close()
		t.Error("the handshake is made")
	}
	answer, err := server.client.Get("https://" + server.address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "the answer" {
		t.Errorf("got %q, %v", body, err)
	}
}

func protocols(set func(*http.Protocols, bool)) *http.Protocols {
	var p http.Protocols
	set(&p, true)
	return &p
}

// The requests that a client sends at once on a new connection are answered, though it has not heard yet how many
// headers the server remembers.
func TestFirstRequestsAreAnswered(t *testing.T) {
	server := newStranger(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Same"))
	}), nil)
	for range 20 {
		conn, err := tls.Dial("tcp", server.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var said bytes.Buffer
		said.WriteString(http2.ClientPreface)
		framer := http2.NewFramer(&said, conn)
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		if err := framer.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		const requests = 3
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for i := range uint32(requests) {
			block.Reset()
			for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/"}, {"x-same", "remembered"}} {
				if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
					t.Fatal(err)
				}
			}
			if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := conn.Write(said.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		for answers := 0; answers < requests; {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatalf("after %d answers: %v", answers, err)
			}
			if data, is := frame.(*http2.DataFrame); is && string(data.Data()) == "remembered" {
				answers++
			}
		}
	}
}
