package xray_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/sagernet/sing-shadowsocks/shadowaead"
	"github.com/sagernet/sing-shadowsocks/shadowaead_2022"
	xbuf "github.com/xtls/xray-core/common/buf"
)

// datagramClient sends datagrams to the target of its test, and receives what comes back.
type datagramClient interface {
	io.ReadWriter // each a whole datagram
	SetReadDeadline(at time.Time) error
}

// answering is a UDP server. It answers a datagram with as many bytes as its first two say,
// which follow from all of its bytes.
func answering(t *testing.T) *net.UDPAddr {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		question := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFromUDP(question)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDP(answerTo(question[:n]), from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr)
}

func answerTo(question []byte) []byte {
	answer := make([]byte, binary.BigEndian.Uint16(append(question, 0, 0)))
	_, _ = mathrand.NewChaCha8(sha256.Sum256(question)).Read(answer)
	return answer
}

// ask sends a datagram of up bytes until its answer of down bytes comes. Where it is lost, ask
// does not wait for it. Every answer that comes must be one to a question of the client.
func ask(client datagramClient, up, down int, lost bool, asked map[string]bool) error {
	question := make([]byte, up)
	_, _ = rand.Read(question)
	binary.BigEndian.PutUint16(question, uint16(down))
	want := answerTo(question)
	asked[string(want)] = true
	if lost {
		_, err := client.Write(question)
		return err
	}
	var late net.Error
	for range 20 {
		if _, err := client.Write(question); err != nil {
			return err
		}
		_ = client.SetReadDeadline(time.Now().Add(time.Second))
		for {
			got := make([]byte, 64<<10)
			n, err := client.Read(got)
			if errors.As(err, &late) && late.Timeout() {
				break
			}
			if err != nil {
				return err
			}
			if bytes.Equal(got[:n], want) {
				return nil
			}
			if !asked[string(got[:n])] {
				return fmt.Errorf("%d bytes up and %d down: %d bytes come that nobody has sent", up, down, n)
			}
		}
	}
	return errors.New("no answer comes")
}

// Datagrams of 1 to 9,000 bytes go through every inbound that has them with their contents, in
// both directions. An answer that xray-core can't encode is lost as a whole, and the ones after
// it come.
func TestDatagramsOfEverySize(t *testing.T) {
	const big, longestAddress = 9000, 1 + 1 + 255 + 2
	for _, row := range []struct {
		name     string
		protocol string
		settings func(target *net.UDPAddr) string
		open     func(r *rig, target *net.UDPAddr) (datagramClient, error)
		longest  int // answer, in bytes, that xray-core encodes whatever the address is
	}{
		{"dokodemo-door", "dokodemo-door", func(target *net.UDPAddr) string {
			return fmt.Sprintf(`"address":"127.0.0.1","port":%d,"network":"udp"`, target.Port)
		}, func(r *rig, _ *net.UDPAddr) (datagramClient, error) { return r.udpSocket(), nil }, big},
		{"socks", "socks", func(*net.UDPAddr) string { return `"udp":true,"auth":"noauth"` }, openSOCKS, big},
		{"shadowsocks", "shadowsocks", func(*net.UDPAddr) string {
			return `"network":"tcp,udp","clients":[{"email":"bob","method":"aes-256-gcm","password":"hush-hush"}]`
		}, openShadowsocks, xbuf.Size - 32 - longestAddress - 16},
		{"shadowsocks 2022", "shadowsocks", func(*net.UDPAddr) string {
			return fmt.Sprintf(`"method":%q,"password":%q,"network":"tcp,udp","clients":[{"password":%q,"email":"bob"}]`, ssMethod, ssKey("server"), ssKey("bob"))
		}, openShadowsocks2022, big},
		{"vless", "vless", func(*net.UDPAddr) string {
			return fmt.Sprintf(`"decryption":"none","clients":[{"id":%q,"email":"bob"}]`, bobID)
		}, openVLESS, xbuf.Size - 2},
		{"trojan", "trojan", func(*net.UDPAddr) string {
			return `"clients":[{"password":"hush-hush","email":"bob"}]`
		}, openTrojan, xbuf.Size - longestAddress - 4},
	} {
		t.Run(row.name, func(t *testing.T) {
			r, target := newRig(t), answering(t)
			s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":%q,"settings":{%s}}]}`,
				r.port, row.protocol, row.settings(target))), func(string) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			r.apply(s)
			client, err := row.open(r, target)
			if err != nil {
				t.Fatal(err)
			}
			asked := map[string]bool{}
			for _, size := range []int{2, 100, 1200, 1472, 1500, 4096, 8000, 8100, 8150, 8180, 8191, 8192, 8193, 8500, big} {
				if row.protocol == "trojan" && size > xbuf.Size {
					break // it ends the stream (maxLength in proxy/trojan/protocol.go)
				}
				for _, sizes := range [][2]int{{size, 1}, {2, size}, {size, size}} {
					if err := ask(client, sizes[0], sizes[1], sizes[1] > row.longest, asked); err != nil {
						t.Fatalf("%d bytes up, %d bytes down: %v", sizes[0], sizes[1], err)
					}
				}
			}
			if err := ask(client, 100, 100, false, asked); err != nil {
				t.Errorf("after all: %v", err)
			}
		})
	}
}

// headed is a client whose datagrams have a header before them.
type headed struct {
	*net.UDPConn
	header []byte
}

func (h headed) Write(p []byte) (int, error) {
	return h.UDPConn.Write(append(append([]byte(nil), h.header...), p...))
}

func (h headed) Read(p []byte) (int, error) {
	whole := make([]byte, len(h.header)+len(p))
	n, err := h.UDPConn.Read(whole)
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(whole[:n], h.header) {
		return 0, fmt.Errorf("% x comes without the header", whole[:min(n, 20)])
	}
	return copy(p, whole[len(h.header):n]), nil
}

// inHeader returns the IPv4 address as SOCKS, Trojan and Shadowsocks have it.
func inHeader(target *net.UDPAddr) []byte {
	return binary.BigEndian.AppendUint16(append([]byte{1}, target.IP.To4()...), uint16(target.Port))
}

func openSOCKS(r *rig, target *net.UDPAddr) (datagramClient, error) {
	return headed{r.udpSocket(), append([]byte{0, 0, 0}, inHeader(target)...)}, nil
}

// packets is a client of package sing.
type packets struct {
	net.PacketConn
	target *net.UDPAddr
}

func (p packets) Write(b []byte) (int, error) { return p.WriteTo(b, p.target) }
func (p packets) Read(b []byte) (int, error) {
	n, _, err := p.ReadFrom(b)
	return n, err
}

func openShadowsocks(r *rig, target *net.UDPAddr) (datagramClient, error) {
	method, err := shadowaead.New("aes-256-gcm", nil, "hush-hush")
	if err != nil {
		return nil, err
	}
	return packets{method.DialPacketConn(r.udpSocket()), target}, nil
}

func openShadowsocks2022(r *rig, target *net.UDPAddr) (datagramClient, error) {
	method, err := shadowaead_2022.NewWithPassword(ssMethod, ssKey("server")+":"+ssKey("bob"), nil)
	if err != nil {
		return nil, err
	}
	return packets{method.DialPacketConn(r.udpSocket()), target}, nil
}

// framed is a client that has datagrams in a stream, each behind a header with its length.
type framed struct {
	net.Conn
	begin  []byte // not sent yet
	prefix []byte // before the length
	suffix []byte // behind it
	skip   int    // bytes of the answer before the first datagram
	rest   []byte // read, and no whole datagram yet
}

func (f *framed) Write(p []byte) (int, error) {
	message := append(append(f.begin, f.prefix...), byte(len(p)>>8), byte(len(p)))
	f.begin = nil
	_, err := f.Conn.Write(append(append(message, f.suffix...), p...))
	return len(p), err
}

func (f *framed) Read(p []byte) (int, error) {
	for {
		header := len(f.prefix) + 2 + len(f.suffix)
		if len(f.rest) >= f.skip+header {
			body := f.rest[f.skip+header:]
			if n := int(binary.BigEndian.Uint16(f.rest[f.skip+len(f.prefix):])); len(body) >= n {
				copy(p, body[:n])
				f.rest, f.skip = append([]byte(nil), body[n:]...), 0
				return n, nil
			}
		}
		more := make([]byte, 32<<10)
		n, err := f.Conn.Read(more)
		f.rest = append(f.rest, more[:n]...)
		if err != nil {
			return 0, err
		}
	}
}

func openVLESS(r *rig, target *net.UDPAddr) (datagramClient, error) {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	id := uuid.MustParse(bobID)
	begin := append(append([]byte{0}, id[:]...), 0, 2, byte(target.Port>>8), byte(target.Port), 1)
	return &framed{Conn: conn, begin: append(begin, target.IP.To4()...), skip: 2}, nil
}

func openTrojan(r *rig, target *net.UDPAddr) (datagramClient, error) {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	sum := sha256.Sum224([]byte("hush-hush"))
	var begin strings.Builder
	fmt.Fprintf(&begin, "%s\r\n\x03%s\r\n", hex.EncodeToString(sum[:]), inHeader(target))
	return &framed{Conn: conn, begin: []byte(begin.String()), prefix: inHeader(target), suffix: []byte("\r\n")}, nil
}
