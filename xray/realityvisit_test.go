package xray_test

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/testfiles"
	"nodeagent/xray/xraytest"
)

// REALITY leads a stranger to the borrowed site. A stranger that stays when the site has closed is held
// for as long as keepalive takes.
func TestREALITYHalfClosed(t *testing.T) {
	site, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	go func() {
		for {
			conn, err := site.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1<<10)) // all, so that it closes with a FIN
			_, _ = conn.Write([]byte("no"))
			_ = conn.Close()
		}
	}()
	r := newRig(t)
	r.apply(r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none",
		"clients":[{"id":%q}]},"streamSettings":{"security":"reality","realitySettings":{"target":%q,"serverNames":["site.test"],
		"privateKey":"0123456789abcdef0123456789abcdef0123456789a","shortIds":["aa"]},%s}}]}`, r.port, aliceID, site.Addr().String(), shortKeepAlive)))
	stranger, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stranger); err != nil {
		t.Fatalf("the site did not close: %v", err)
	}
	const halfClosed = 5 // FIN_WAIT2 in include/net/tcp_states.h
	r.eventually("the stranger's connection is half closed", func() bool { return len(acceptedIn(t, halfClosed, r.port)) == 1 })
	// Less than the minute after which the kernel closes what no program holds any more.
	r.within(50*time.Second, "the stranger's connection is closed", func() bool { return len(acceptedIn(t, halfClosed, r.port)) == 0 })
}

// slowAnswer is what foreverSite says to a visitor that says slow, a byte every half a second.
const slowAnswer = "slowly"

// foreverSite is a site that closes no connection, but the one of a visitor that says slow.
func foreverSite(t *testing.T) net.Addr {
	t.Helper()
	chain, private := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	certificate, err := tls.X509KeyPair([]byte(chain), []byte(private))
	if err != nil {
		t.Fatal(err)
	}
	site, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = site.Close() })
	go func() {
		for {
			conn, err := site.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go func() {
				reader := bufio.NewReader(conn)
				first, _ := reader.Peek(1)
				switch string(first) {
				case "\x16": // a record of TLS
					_ = tls.Server(buffered{conn, reader}, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}}).Handshake()
				case "s":
					for _, letter := range slowAnswer {
						time.Sleep(500 * time.Millisecond)
						_, _ = conn.Write([]byte(string(letter)))
					}
					_ = conn.Close()
				}
			}()
		}
	}()
	return site.Addr()
}

// buffered is a connection of which a part is read.
type buffered struct {
	net.Conn
	reader io.Reader
}

func (b buffered) Read(to []byte) (int, error) { return b.reader.Read(to) }

// A stranger who half-closes, and one who says nothing, are not held where the borrowed site closes no
// connection, and are counted. A visitor of a slow site and a stock client stay.
func TestREALITYVisitsAreBounded(t *testing.T) {
	for name, stream := range map[string]string{"raw": `"network":"raw"`, "grpc": `"network":"grpc","grpcSettings":{"serviceName":"s"}`} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			testfiles.Write(t, filepath.Join(r.assets, shortVisit), "")
			key, err := ecdh.X25519().GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			words := base64.RawURLEncoding
			r.apply(r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none",
				"clients":[{"id":%q}]},"streamSettings":{%s,"security":"reality","realitySettings":{"target":%q,"serverNames":["site.test"],
				"privateKey":%q,"shortIds":["aa"]}}}]}`, r.port, aliceID, stream, foreverSite(t).String(), words.EncodeToString(key.Bytes()))))
			visit := func(says string) *net.TCPConn {
				conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				if _, err := io.WriteString(conn, says); err != nil {
					t.Fatal(err)
				}
				return conn.(*net.TCPConn)
			}
			halfClosed, slow, silent := visit("GET / HTTP/1.1\r\n\r\n"), visit("slow, please"), visit("")
			for _, conn := range []*net.TCPConn{halfClosed, slow} {
				if err := conn.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			client, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"vless","settings":{"vnext":[{"address":"127.0.0.1","port":%d,"users":[{"id":%q,"encryption":"none"}]}]},
				"streamSettings":{%s,"security":"reality","realitySettings":{"fingerprint":"chrome","serverName":"site.test","publicKey":%q,"shortId":"aa"}}}`,
				r.port, aliceID, stream, words.EncodeToString(key.PublicKey().Bytes())))
			if err == nil {
				err = use(client)
			}
			if err != nil {
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(slow); string(answer) != slowAnswer {
				t.Errorf("a visitor got %q of a slow site: %v", answer, err)
			}
			for who, conn := range map[string]net.Conn{"who half-closed": halfClosed, "who is silent": silent} {
				_ = conn.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
					t.Errorf("a stranger %s is held: %v", who, err)
				}
			}
			r.eventually("the strangers are counted", func() bool { return r.engine.Status().RefusedConnections["in-1"] == 3 })
			if err := use(client); err != nil {
				t.Errorf("a client was cut: %v", err)
			}
		})
	}
}
