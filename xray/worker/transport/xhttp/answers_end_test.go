package xhttp

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"
)

// A client that asks for the end of the connection with a packet, as nginx does, gets its answer: also where
// nobody knows what the socket has taken, and behind a proxy that tells the client's address.
func TestAnswerBeforeTheEnd(t *testing.T) {
	for name, row := range map[string]struct {
		wrap  func(net.Listener) net.Listener
		begin string
	}{
		"masked":         {func(l net.Listener) net.Listener { return masked{l} }, ""},
		"PROXY protocol": {func(l net.Listener) net.Listener { return &proxyproto.Listener{Listener: l} }, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dial, _ := answering(t, row.wrap)
			for i := range 100 {
				conn := dial()
				if _, err := fmt.Fprintf(conn, "%sPOST /x/session/%d HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", row.begin, i); err != nil {
					t.Fatal(err)
				}
				in := bufio.NewReader(conn)
				answer, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatalf("the answer on connection %d: %v", i, err)
				}
				_ = answer.Body.Close()
				if _, err := in.ReadByte(); answer.StatusCode != http.StatusOK || err != io.EOF {
					t.Fatalf("connection %d: answer %d, then %v", i, answer.StatusCode, err)
				}
			}
		})
	}
}

// A connection is closed once its answers are written, or after a time.
func TestCloseAfterAnswersThatWait(t *testing.T) {
	for name, reads := range map[string]bool{"a client that reads": true, "one that does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe() // takes nothing by itself
				c := &conn{Conn: near, closed: func(*conn) {}}
				c.answers.ofPacket.Store(true)
				const text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
				if _, err := io.WriteString(c, text); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				ended := make(chan error)
				go func() { ended <- c.Close() }()
				synctest.Wait()
				want := lastWait
				if reads {
					want = 0
					if got, err := io.ReadAll(far); string(got) != text || err != nil {
						t.Errorf("the client reads %q: %v", got, err)
					}
				}
				if err := <-ended; err != nil || time.Since(began) != want {
					t.Errorf("the connection ends after %s, want %s: %v", time.Since(began), want, err)
				}
			})
		})
	}
}

// The end of what is written comes after the answers that wait, and comes also where the client reads nothing.
// Over TLS it would wait for the write that waits for the client.
func TestEndAfterAnswersThatWait(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	for name, reads := range map[string]bool{"a client that reads": true, "one that does not": false} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe() // takes nothing by itself
			defer far.Close()
			secure := tls.Server(near, &tls.Config{Certificates: certified.TLS.Certificates, SessionTicketsDisabled: true})
			client := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
			shaken := make(chan error)
			go func() { shaken <- secure.Handshake() }()
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := <-shaken; err != nil {
				t.Fatal(err)
			}
			c := &conn{Conn: secure, closed: func(*conn) {}}
			c.answers.ofPacket.Store(true)
			const text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
			if _, err := io.WriteString(c, text); err != nil {
				t.Fatal(err)
			}
			until(t, "the answer is being written", func() bool {
				c.answers.mu.Lock()
				defer c.answers.mu.Unlock()
				return len(c.answers.late) == 0
			})
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = c.CloseWrite()
				_ = c.Close()
			}()
			if reads {
				if got, err := io.ReadAll(client); string(got) != text || err != nil {
					t.Errorf("the client reads %q: %v", got, err)
				}
			}
			select {
			case <-ended:
			case <-time.After(time.Minute):
				t.Fatal("the connection does not end")
			}
		})
	}
}
