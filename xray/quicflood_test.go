package xray_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/xraytest"
)

// residentMB returns a member of /proc/PID/status in megabytes: VmRSS for what a process holds, VmHWM
// for the most that it ever held.
func residentMB(t *testing.T, pid int, member string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, is := strings.CutPrefix(line, member+":"); is {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb >> 10
		}
	}
	t.Fatalf("/proc/%d/status lacks %s", pid, member)
	return 0
}

// initial is a packet that begins a QUIC connection, as a stranger makes it without any effort: a
// long header with random connection IDs, and noise (RFC 9000 section 17.2.2).
func initial() []byte {
	packet := make([]byte, 1200)
	_, _ = rand.Read(packet)
	copy(packet, []byte{0xc3, 0, 0, 0, 1, 8})
	packet[14] = 4                                     // the length of the source ID
	packet[19] = 0                                     // of the token
	packet[20], packet[21] = 0x40|(1178>>8), 1178&0xff // of what follows
	return packet
}

// flood sends so many initial packets to a port on loopback, some hundred at a time.
func flood(t *testing.T, port, packets int) {
	t.Helper()
	var sockets []net.Conn
	for range 20 {
		conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sockets = append(sockets, conn)
	}
	for i := range packets {
		_, _ = sockets[i%len(sockets)].Write(initial())
		if i%100 == 0 {
			time.Sleep(5 * time.Millisecond) // the worker's socket holds some hundred
		}
	}
}

// Strangers who begin QUIC connections and go no further cost a worker little memory, and its
// clients are served meanwhile: those that are there, and new ones.
func TestQUICFlood(t *testing.T) {
	const (
		packets = 20_000
		mostMB  = 150 // for the buffers of clients and what the race detector adds; it was 400 to 1,600
	)
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	block, _ := pem.Decode([]byte(certificate))
	sum := sha256.Sum256(block.Bytes)
	pin := hex.EncodeToString(sum[:])
	for _, c := range []struct{ name, inbound, stream, outbound, client string }{
		{
			"Hysteria", `"protocol":"hysteria","settings":{"version":2,"clients":[{"email":"a","auth":"a"}]}`,
			`"network":"hysteria","hysteriaSettings":{"version":2}`,
			`"protocol":"hysteria","settings":{"version":2,"address":"127.0.0.1","port":%d}`, `"network":"hysteria","hysteriaSettings":{"version":2,"auth":"a"}`,
		},
		{
			"XHTTP over HTTP3", `"protocol":"vless","settings":{"decryption":"none","clients":[{"email":"a","id":"` + aliceID + `"}]}`,
			`"network":"xhttp","xhttpSettings":{"path":"/x"}`,
			`"protocol":"vless","settings":{"vnext":[{"address":"127.0.0.1","port":%d,"users":[{"id":"` + aliceID + `","encryption":"none"}]}]}`, `"network":"xhttp","xhttpSettings":{"path":"/x"}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			port := freePort(t)
			s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,%s,"streamSettings":{%s,"security":"tls",
				"tlsSettings":{"alpn":["h3"],"certificates":[{"certificate":[%q],"key":[%q]}]}}}]}`, port, c.inbound, c.stream, certificate, key)), func(string) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			r.apply(s)
			dial := func() net.Conn {
				conn, err := r.dialOutbound(fmt.Sprintf(`{`+c.outbound+`,"streamSettings":{%s,"security":"tls","tlsSettings":{"alpn":["h3"],"serverName":"site.test","pinnedPeerCertSha256":%q}}}`, port, c.client, pin))
				if err == nil {
					err = use(conn)
				}
				if err != nil {
					t.Fatal(err)
				}
				return conn
			}
			there := dial()
			pid := r.engine.Status().PID
			before := residentMB(t, pid, "VmRSS")
			flooded := make(chan struct{})
			go func() {
				defer close(flooded)
				flood(t, port, packets)
			}()
			for during := true; during; {
				select {
				case <-flooded:
					during = false
				default:
				}
				if err := use(there); err != nil {
					t.Fatalf("a client that is there: %v", err)
				}
				_ = dial().Close()
			}
			most := residentMB(t, pid, "VmHWM") - before
			t.Logf("%d packets cost at most %d MB", packets, most)
			if most > mostMB {
				t.Errorf("%d packets of strangers cost %d MB, want at most %d", packets, most, mostMB)
			}
			if now := r.engine.Status().PID; now != pid {
				t.Errorf("worker %d was replaced by %d", pid, now)
			}
		})
	}
}
