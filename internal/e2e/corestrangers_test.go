package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"nodeagent/coreclient/wire"
)

// strangersOfCore are attacks on Core by hosts that have no key.
var strangersOfCore = map[string]func(*core, *testing.T){
	"headers that do not end": func(c *core, _ *testing.T) {
		c.crowd(500, func(conn net.Conn) {
			_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\nX: %s", strings.Repeat("x", 30_000))
			_, _ = io.Copy(io.Discard, conn) // until Core gives up
		})
	},
	"streams that are begun and reset": func(c *core, _ *testing.T) {
		c.crowd(10, func(conn net.Conn) {
			var block bytes.Buffer
			encoder := hpack.NewEncoder(&block)
			for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", wire.PathConfig}} {
				_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1], Sensitive: true})
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
				return
			}
			framer := http2.NewFramer(conn, nil)
			err := framer.WriteSettings()
			for stream := uint32(1); err == nil && stream < 20_000; stream += 2 {
				err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
				if err == nil {
					err = framer.WriteRSTStream(stream, http2.ErrCodeCancel)
				}
			}
		})
	},
	"bodies that decompress to more": func(c *core, t *testing.T) {
		c.post(t, "gzip", packedZeros(t, 64<<20))
	},
	"lists in lists": func(c *core, t *testing.T) {
		c.post(t, "", []byte(`{"code":`+strings.Repeat("[", 60_000)))
	},
}

// core is Core as strangers see it.
type core struct{ address string }

// crowd runs attack on n connections at a time: over HTTP/2 where a stranger asks for that.
func (c *core) crowd(n int, attack func(net.Conn)) {
	var all sync.WaitGroup
	connecting := make(chan struct{}, 50) // as many as fit into the queue of a socket that listens
	for range n {
		connecting <- struct{}{}
		all.Go(func() {
			conn, err := tls.Dial("tcp", c.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{[]string{"http/1.1", "h2"}[btoi(n < 100)]}})
			<-connecting
			if err != nil {
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // it fails on closed connections alone
			attack(conn)
		})
	}
	all.Wait()
}

func btoi(is bool) int {
	if is {
		return 1
	}
	return 0
}

// post sends a body to the routes that take one before they know of whom, and to the others.
func (c *core) post(t *testing.T, encoding string, body []byte) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxConnsPerHost: 20}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for i := range 200 {
		path := []string{wire.PathRegister, wire.PathUsage, "/api/v1/users"}[i%3]
		all.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+c.address+path, bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Content-Encoding", encoding)
			answer, err := client.Do(r)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				return
			}
			defer answer.Body.Close()
			if answer.StatusCode < 400 || answer.StatusCode >= 500 {
				t.Errorf("%s answers %s", path, answer.Status)
			}
		})
	}
	all.Wait()
}

func packedZeros(t *testing.T, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.CopyN(w, nothingButZeros{}, n); err != nil {
		t.Fatal(err)
	}
	must(t, w.Close())
	return b.Bytes()
}

type nothingButZeros struct{}

func (nothingButZeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Strangers who reach Core cost it little memory, and it serves its operator and its node meanwhile.
func TestStrangersOfCore(t *testing.T) {
	const mostMB = 150
	w := newWorld(t)
	w.start()
	stranger := &core{w.core.listen}
	before, err := memory(w.core.PID(), "VmRSS")
	must(t, err)
	for name, attack := range strangersOfCore {
		t.Run(name, func(t *testing.T) {
			over, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for n := 0; ; n++ {
					var nodes []Node
					if err := w.core.Do(t.Context(), &nodes, "node", "list"); err != nil {
						t.Errorf("Core does not serve: %v", err)
					}
					select {
					case <-over:
						t.Logf("Core served %d commands meanwhile", n)
						return
					default:
					}
				}
			}()
			attack(stranger, t)
			close(over)
			<-done
			most, err := memory(w.core.PID(), "VmHWM")
			must(t, err)
			t.Logf("Core had %.0f MB, and now had %.0f at most", before, most)
			if most-before > mostMB {
				t.Errorf("strangers cost Core %.0f MB, want at most %d", most-before, mostMB)
			}
		})
	}
	w.subscriber("alice") // the node goes on
	w.protocol()
	w.synced()
}
