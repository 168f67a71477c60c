package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// hurried starts a server for strangers whose times are shorter: a time that is missing stays so.
func hurried(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := newServer(handler, nil, slog.New(slog.DiscardHandler))
	server.ReadHeaderTimeout /= 20
	server.ReadTimeout /= 100
	server.WriteTimeout /= 600
	server.IdleTimeout /= 240
	s := httptest.NewUnstartedServer(handler)
	s.Config, s.EnableHTTP2 = server, true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
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
		conn, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
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
	t.Run("a handshake of TLS that does not come", func(t *testing.T) {
		t.Parallel()
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
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
		answer, err := server.Client().Get(server.URL + "/long")
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
