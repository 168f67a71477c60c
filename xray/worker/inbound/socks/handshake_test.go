package socks

import (
	"bytes"
	"encoding/hex"
	"io"
	"strings"
	"testing"

	xnet "github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/proxy/socks"
)

// socksOf answers handshakes of an inbound with accounts, or without.
func socksOf(accounts map[string]string, udp bool) *Server {
	s := &Server{config: &socks.ServerConfig{UdpEnabled: udp, Accounts: accounts}}
	if accounts != nil {
		s.config.AuthType = socks.AuthType_PASSWORD
	}
	return s
}

var socksBound = [2]xnet.Destination{xnet.TCPDestination(xnet.ParseAddress("192.0.2.1"), 1080), xnet.UDPDestination(xnet.ParseAddress("proxy.example"), 1081)}

func TestSOCKSHandshake(t *testing.T) {
	accounts := map[string]string{"u": "pw"}
	for name, c := range map[string]struct {
		accounts      map[string]string
		udp           bool
		sent, answer  string // hexadecimal
		account, asks string
		associates    bool
		fails         string
	}{
		"connect by address":     {nil, false, "05 01 00  05 01 00 01 c0000207 0050", "05 00  05 00 00 01 c0000201 0438", "", "tcp:192.0.2.7:80", false, ""},
		"by name":                {nil, false, "05 02 02 00  05 01 00 03 03 612e62 01bb", "05 00  05 00 00 01 c0000201 0438", "", "tcp:a.b:443", false, ""},
		"by IPv6":                {nil, false, "05 01 00  05 01 00 04 20010db8000000000000000000000001 0050", "05 00  05 00 00 01 c0000201 0438", "", "tcp:[2001:db8::1]:80", false, ""},
		"Tor's resolve":          {nil, false, "05 01 00  05 f0 00 03 03 612e62 0000", "05 00  05 00 00 01 c0000201 0438", "", "tcp:a.b:0", false, ""},
		"with an account":        {accounts, false, "05 02 00 02  01 01 75 02 7077  05 01 00 01 c0000207 0050", "05 02  01 00  05 00 00 01 c0000201 0438", "u", "tcp:192.0.2.7:80", false, ""},
		"another password":       {accounts, false, "05 01 02  01 01 75 02 7078", "05 02  01 ff", "", "", false, "no such account"},
		"no account":             {accounts, false, "05 01 00", "05 ff", "", "", false, "no method"},
		"associate":              {accounts, true, "05 01 02  01 01 75 02 7077  05 03 00 01 00000000 0000", "05 02  01 00  05 00 00 03 0d 70726f78792e6578616d706c65 0439", "u", "tcp:0.0.0.0:0", true, ""},
		"associate without UDP":  {nil, false, "05 01 00  05 03 00 01 00000000 0000", "05 00  05 07 00 01 00000000 0000", "", "", false, "command 3"},
		"bind":                   {nil, true, "05 01 00  05 02 00 01 00000000 0000", "05 00  05 07 00 01 00000000 0000", "", "", false, "command 2"},
		"an address of no kind":  {nil, true, "05 01 00  05 01 00 09 00000000 0000", "05 00", "", "", false, "address"},
		"cut short":              {nil, true, "05 01 00  05 01", "05 00", "", "", false, "request"},
		"SOCKS 4":                {nil, false, "04 01 0050 c0000207 6d6500", "00 5a 0000 00000000", "", "tcp:192.0.2.7:80", false, ""},
		"SOCKS 4a":               {nil, false, "04 01 0050 00000001 00 612e6200", "00 5a 0000 00000000", "", "tcp:a.b:80", false, ""},
		"SOCKS 4a, another way":  {nil, false, "04 01 0050 00000000 00 612e6200", "00 5a 0000 00000000", "", "tcp:a.b:80", false, ""},
		"SOCKS 4 binds":          {nil, false, "04 02 0050 c0000207 00", "00 5b 0000 00000000", "", "", false, "command 2"},
		"SOCKS 4 where accounts": {accounts, false, "04 01 0050 c0000207 7500", "00 5b 0000 00000000", "", "", false, "no accounts"},
	} {
		t.Run(name, func(t *testing.T) {
			sent, _ := hex.DecodeString(strings.ReplaceAll(c.sent, " ", ""))
			answer, _ := hex.DecodeString(strings.ReplaceAll(c.answer, " ", ""))
			var written bytes.Buffer
			request, err := socksOf(c.accounts, c.udp).handshake(sent[0], bytes.NewReader(sent[1:]), &written, socksBound)
			written.Write(request.granted)
			if !bytes.Equal(written.Bytes(), answer) {
				t.Errorf("answer % x, want % x", written.Bytes(), answer)
			}
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v, want %q", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if request.account != c.account || request.associates != c.associates || request.to.String() != c.asks {
				t.Errorf("request %+v to %s", request, request.to)
			}
		})
	}
}

func FuzzSOCKSHandshake(f *testing.F) {
	f.Add(byte(5), []byte("\x01\x00\x05\x01\x00\x03\x03a.b\x01\xbb"), false)
	f.Add(byte(5), []byte("\x01\x02\x01\x01u\x02pw\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"), true)
	f.Add(byte(4), []byte("\x01\x00\x50\x00\x00\x00\x01me\x00a.b\x00"), false)
	f.Fuzz(func(t *testing.T, version byte, sent []byte, asks bool) {
		var accounts map[string]string
		if asks {
			accounts = map[string]string{"u": "pw"}
		}
		request, err := socksOf(accounts, true).handshake(version, bytes.NewReader(sent), io.Discard, socksBound)
		switch {
		case err != nil:
		case asks && request.account != "u":
			t.Errorf("%q got in without an account", sent)
		case request.to.Address == nil || request.granted == nil:
			t.Errorf("%q asks for no address, or waits for no answer: %+v", sent, request)
		}
	})
}
