//go:build !race

package xray_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// strangersOfHTTP2 are what strangers do with a connection of HTTP/2.
var strangersOfHTTP2 = map[string]func(*http2.Framer){
	// CVE-2023-44487
	"streams that are begun and reset": func(framer *http2.Framer) {
		block := headerBlock("/wrong")
		for stream := uint32(1); stream < 20_000; stream += 2 {
			if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true}) != nil ||
				framer.WriteRSTStream(stream, http2.ErrCodeCancel) != nil {
				return
			}
		}
	},
	// CVE-2023-45288
	"a header that does not end": func(framer *http2.Framer) {
		if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headerBlock("/wrong")}) != nil {
			return
		}
		for n := range 1000 {
			var block bytes.Buffer
			_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: fmt.Sprint("x", n), Value: strings.Repeat("~", 12_000), Sensitive: true})
			if framer.WriteContinuation(1, false, block.Bytes()) != nil {
				return
			}
		}
	},
	"settings and pings": func(framer *http2.Framer) {
		for range 20_000 {
			if framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) != nil || framer.WritePing(false, [8]byte{}) != nil {
				return
			}
		}
	},
}

func headerBlock(path string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", path}, {"content-type", "application/grpc"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1], Sensitive: true}) // a buffer takes everything
	}
	return block.Bytes()
}

// Strangers who misuse HTTP/2 cost the worker little memory, and its clients are served meanwhile.
// net/http runs at most 250 handlers for each connection (http2defaultMaxStreams), with some 15 KB each:
// that is 75 MB. On a crowded machine the garbage of streams that were reset comes on top.
func TestStreamsFlood(t *testing.T) {
	const connections, mostMB, mostGoroutines = 20, 200, 500
	for name, stream := range map[string]string{
		"grpc":  `"network":"grpc","grpcSettings":{"serviceName":"s"}`,
		"xhttp": `"network":"xhttp","xhttpSettings":{"path":"/p"}`,
	} {
		for attack, do := range strangersOfHTTP2 {
			t.Run(name+": "+attack, func(t *testing.T) {
				r := newRig(t)
				s, err := parseReaching(fmt.Appendf(nil, `{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none",
					"clients":[{"id":%q}]},"streamSettings":{%s}}]}`, r.port, aliceID, stream), func(string) bool { return true })
				if err != nil {
					t.Fatal(err)
				}
				r.apply(s)
				there, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"vless","settings":{"vnext":[{"address":"127.0.0.1","port":%d,"users":[{"id":%q,"encryption":"none"}]}]},
					"streamSettings":{%s}}`, r.port, aliceID, stream))
				if err == nil {
					err = use(there)
				}
				if err != nil {
					t.Fatal(err)
				}
				pid := r.engine.Status().PID
				before, goroutines := residentMB(t, pid, "VmRSS"), r.engine.Status().Goroutines
				var strangers sync.WaitGroup
				over := make(chan struct{})
				for range connections {
					conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = conn.Close() })
					go func() { _, _ = io.Copy(io.Discard, conn) }()
					strangers.Go(func() {
						_ = conn.SetWriteDeadline(time.Now().Add(patience))
						if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
							return
						}
						framer := http2.NewFramer(conn, nil)
						if framer.WriteSettings() == nil {
							do(framer)
						}
					})
				}
				go func() { strangers.Wait(); close(over) }()
				for served := 0; ; served++ {
					if err := use(there); err != nil {
						t.Fatalf("after %d exchanges: %v", served, err)
					}
					select {
					case <-over:
					default:
						continue
					}
					t.Logf("the client was served %d times meanwhile", served+1)
					break
				}
				most := residentMB(t, pid, "VmHWM") - before
				t.Logf("it cost at most %d MB", most)
				if most > mostMB {
					t.Errorf("strangers cost %d MB, want at most %d", most, mostMB)
				}
				r.eventually("what strangers began is over", func() bool { return r.engine.Status().Goroutines < goroutines+mostGoroutines })
				if now := r.engine.Status().PID; now != pid {
					t.Errorf("worker %d was replaced by %d", pid, now)
				}
			})
		}
	}
}
