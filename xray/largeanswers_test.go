package xray_test

import (
	"encoding/json"
	"fmt"
	"net"
	"testing"
	"time"

	xnet "github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/proxy/shadowsocks"
)

// A site that answers with more than fits into a datagram of Shadowsocks costs its client that
// answer, and not everybody the worker.
func TestALargeAnswerEndsNoWorker(t *testing.T) {
	r, port := newRig(t), freePort(t)
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"shadowsocks",
		"settings":{"network":"tcp,udp","clients":[{"email":"bob","method":"aes-256-gcm","password":%q}]}}]}`, port, bobID)), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	r.apply(s)
	pid := r.engine.Status().PID
	site, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	go func() { // answers with 8,150 to 8,200 bytes, and with one byte
		buffer := make([]byte, 100)
		for {
			_, from, err := site.ReadFrom(buffer)
			if err != nil {
				return
			}
			for size := 8150; size <= 8200; size++ {
				_, _ = site.WriteTo(make([]byte, size), from)
			}
			_, _ = site.WriteTo([]byte{1}, from)
		}
	}()
	account, err := (&shadowsocks.Account{Password: bobID, CipherType: shadowsocks.CipherType_AES_256_GCM}).AsAccount()
	if err != nil {
		t.Fatal(err)
	}
	to := xnet.DestinationFromAddr(site.LocalAddr())
	packet, err := shadowsocks.EncodeUDPPacket(&protocol.RequestHeader{
		User: &protocol.MemoryUser{Account: account}, Address: to.Address, Port: to.Port,
	}, []byte("a question"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write(packet.Bytes()); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(patience / 4))
	buffer := make([]byte, 64<<10)
	for n := 0; n == 0 || n > 200; { // the small answer comes last
		if n, err = client.Read(buffer); err != nil {
			t.Fatalf("the small answer does not come: %v", err)
		}
	}
	if now := r.engine.Status().PID; now != pid {
		t.Errorf("worker %d was replaced by %d", pid, now)
	}
}
