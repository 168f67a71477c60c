package worker

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"nodeagent/xray/xraytest"
)

// The worker reaches into xray-core where that exports nothing: docs/upgrading.md has the
// list. Behaviour is tested elsewhere; this test notices where a line of xray-core's source
// is another one than a reach was written for. Where it fails: read what became of the
// line, change the reach, and then the row.
func TestReachesIntoXray(t *testing.T) {
	xray := xraytest.Source(t)
	for _, reach := range []struct{ ours, file, line string }{
		// Types that xray-core insists on without saying so in a signature.
		{"traffic/dispatcher.go: the reader given back", "common/mux/session.go", `s.input.(*pipe.Reader).ReturnAnError(io.EOF)`},
		{"traffic/splice.go: a connection that reads by itself", "common/buf/io.go", `if mr, ok := reader.(Reader); ok {`},
		{"traffic/splice.go: who copies", "proxy/freedom/freedom.go", `useSplice.Load() && proxy.IsRAWTransportWithoutSecurity(conn) {`},
		{"traffic/splice.go: the copy", "proxy/freedom/freedom.go", `buf.Copy(reader, output, buf.UpdateActivity(timer))`},
		{"traffic/splice.go: Vision's end", "proxy/proxy.go", `spliceReadyInbound.CanSpliceCopy = 1`},
		{"traffic/records.go: Vision's end", "proxy/proxy.go", `bytes.Equal(TlsApplicationDataStart, b.BytesTo(3)) && isComplete {`},
		{"traffic/freedom.go: what a dialer of an outbound does", "app/proxyman/outbound/handler.go", "conn, err := internet.Dial(ctx, dest, h.streamSettings)\n\tconn = h.getStatCouterConnection(conn)\n\toutbounds := session.OutboundsFromContext(ctx)\n\tif outbounds != nil {\n\t\tob := outbounds[len(outbounds)-1]\n\t\tob.Conn = conn"},
		{"traffic/freedom.go: what a TCP dialer does", "transport/internet/tcp/dialer.go", "conn, err := internet.DialSystem(ctx, dest, streamSettings.SocketSettings)"},
		{"reach/dialer.go: quickDialer", "transport/internet/system_dialer.go", "return dialer.DialContext(ctx, dest.Network.SystemString(), dest.NetAddr())"},
		{"reach/dialer.go: quickDialer's patience", "transport/internet/system_dialer.go", "Timeout:         time.Second * 16,"},
		{"traffic/splice.go: its values", "common/session/session.go", `// 1 = can, 2 = after processing protocol info should be able to, 3 = cannot`},
		{"transport/hysteria: the proxy", "app/proxyman/inbound/worker.go", `if v, ok := w.proxy.(*hysteria_proxy.Server); ok {`},
		{"transport/hysteria: one pointer for proxy and listener", "app/proxyman/inbound/always.go", `newCtx = session.ContextWithStreamSettings(newCtx, mss)`},
		{"transport/mkcp: the socket goes through masks", "transport/internet/udp/hub.go", "hub.conn, err = streamSettings.UdpmaskManager.WrapPacketConnServer(raw)"},
		{"transport/mkcp: a connection sends", "transport/internet/kcp/connection.go", "5000, // 5 seconds"},
		{"transport/mkcp: a socket for each connection", "transport/internet/kcp/dialer.go", "conn, err := internet.DialSystem(ctx, dest, streamSettings.SocketSettings)"},
		{"lasting.go: the listeners of a handler", "app/proxyman/inbound/always.go", "workers        []worker"},
		{"lasting.go: the listener of datagrams", "app/proxyman/inbound/always.go", "worker := &udpWorker{"},
		{"lasting.go: the listener of streams", "app/proxyman/inbound/worker.go", "hub internet.Listener"},
		{"inbound/socks/server.go: cone", "core/xray.go", `context.WithValue(server.ctx, "cone",`},
		{"guard: a proxy that starts by itself", "app/proxyman/inbound/always.go", `if run, ok := h.proxy.(common.Runnable); ok {`},
		{"features/policydns.go: a nil System", "app/policy/manager.go", `if m.system == nil {`},
		// Orders.
		{"outbound/wireguard: the device is made before its bind", "proxy/wireguard/client.go", "dev := device.NewDevice(h.tun, bind, logger)\n\tbind.resolveFunc = resolveFunc"},
		{"transport/forwarded.go: the last mask comes first", "transport/internet/finalmask/finalmask.go", `for _, mask := range slices.Backward(m.tcpmasks) {`},
		{"parse/newnames.go: the older name counts", "infra/conf/vless.go", `c.Users = c.Clients`},
		{"parse/newnames.go: the newer name counts", "infra/conf/transport_internet.go", `c.Network = c.Method`},
		// Copied constants.
		{"transport/transports.go: udpIdle", "transport/internet/hysteria/config.go", `UdpIdleTimeout: 60,`},
		{"inbound/shadowsocks: udpIdle", "proxy/shadowsocks_2022/inbound_multi.go", `NewMultiService[int](config.Method, psk, 500, inbound, nil)`},
		{"transport/xhttp: xhttpHeaderWait", "transport/internet/splithttp/hub.go", `ReadHeaderTimeout: time.Second * 4,`},
		{"transport/xhttp: xhttpSessionWait", "transport/internet/splithttp/hub.go", `time.Sleep(30 * time.Second)`},
		{"transport/xhttp: isHTTP3", "transport/internet/splithttp/hub.go", `l.isH3 = len(tlsConfig.NextProtos) == 1 && tlsConfig.NextProtos[0] == "h3"`},
		{"transport/grpc: names", "transport/internet/grpc/config.go", `endingPath := c.ServiceName[strings.LastIndex(c.ServiceName, "/")+1:]`},
		{"unixsocket: the lock beside a path", "transport/internet/system_listener.go", `path: address + ".lock",`},
		{"parse/secrets.go: a UUID's route", "proxy/hysteria/account/config.go", `id[6] = 0`},
		// Words of the log that are left out.
		{"log.go", "transport/internet/splithttp/hub.go", `failed to serve HTTP for XHTTP`},
		{"log.go", "transport/internet/tls/config.go", `ignoring invalid OCSP`},
		{"log.go", "common/protocol/http/headers.go", `"X-Forwarded-For" from `},
		// Which addresses are private, and which inbounds' clients are kept from them: internal/e2e/loopback.go.
		{"e2e: the inbounds whose clients are kept off", "proxy/freedom/freedom.go", `case "vless", "vmess", "trojan", "hysteria", "wireguard":`},
	} {
		source, err := os.ReadFile(filepath.Join(xray, reach.file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(source), reach.line) {
			t.Errorf("%s is written for the line\n\t%s\nwhich xray-core's %s has no more", reach.ours, reach.line, reach.file)
		}
	}
}

// Every place in docs/upgrading.md that names a file of this project names one that is
// there, and every test of it is one.
func TestUpgradingNamesWhatIsThere(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "upgrading.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile("`((?:xray|internal|cmd|docs)/[^`]*)`").FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(filepath.Join(root, found[1])); err != nil {
			t.Errorf("docs/upgrading.md names %s: %v", found[1], err)
		}
	}
	tests := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, name := range regexp.MustCompile(`(?m)^func (Test\w+|Benchmark\w+)\(`).FindAllStringSubmatch(string(source), -1) {
			tests[name[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile("`((?:Test|Benchmark)[A-Z]\\w*)`").FindAllStringSubmatch(string(text), -1) {
		if !tests[name[1]] {
			t.Errorf("docs/upgrading.md names the test %s, which is none", name[1])
		}
	}
}
