package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/state"
)

const (
	costBytes    = 96 << 20
	costOpens    = 400 // for each measured figure
	costIdle     = 1000
	costTries    = 10
	costUDP      = time.Second // for so long datagrams are echoed
	costDatagram = 1000
	// costWindow is how many datagrams are on their way at a time.
	costWindow = 4
)

// costKind is a protocol that is compared, and the settings of a sing-box inbound for it.
type costKind struct {
	protocolKind
	name    string
	vision  bool // TLS 1.3 inside
	udp     bool
	singBox map[string]any // nil where sing-box is not compared
	// tunnel tells that clients send packets of IP. The network stack at their end takes none to
	// loopback: clients ask for costFar, and the servers redirect that to the target.
	tunnel bool
}

// costFar is an address for documentation (RFC 5737).
const costFar = "192.0.2.1"

// costKinds returns the protocols. One certificate serves all of them.
func costKinds(b *testing.B) []costKind {
	overTLS, reality := secureStreams(b)
	uuid := benchUUIDs(1)[0]
	given := overTLS.server["tlsSettings"].(map[string]any)["certificates"].([]any)[0].(map[string]any)
	secure := map[string]any{"enabled": true, "server_name": siteName, "certificate": given["certificate"], "key": given["key"]}
	borrowed := reality.server["realitySettings"].(map[string]any)
	host, port, err := net.SplitHostPort(borrowed["dest"].(string))
	benchCheck(b, err)
	sitePort, err := net.LookupPort("tcp", port)
	benchCheck(b, err)
	realityTLS := map[string]any{"enabled": true, "server_name": siteName, "reality": map[string]any{
		"enabled": true, "private_key": borrowed["privateKey"], "short_id": borrowed["shortIds"], "handshake": map[string]any{"server": host, "server_port": sitePort},
	}}
	withUsers := func(kind, flow string, more map[string]any) map[string]any {
		user := map[string]any{"name": "a"}
		switch kind {
		case "vless":
			user["uuid"] = uuid
			if flow != "" {
				user["flow"] = flow
			}
		default:
			user["password"] = uuid
		}
		return also(also(more, "type", kind), "users", []any{user})
	}
	shadowsocks := kindShadowsocks()
	shadowsocks.settings = also(shadowsocks.settings, "network", "tcp,udp")
	key := shadowsocks.account(uuid)["password"]
	hysteria := protocolKind{"hysteria", map[string]any{"version": 2}, func(uuid string) map[string]any {
		return map[string]any{"email": uuid, "auth": uuid}
	}, func(port int, _ string) map[string]any {
		return map[string]any{"version": 2, "address": "127.0.0.1", "port": port}
	}, streams{
		also(secured(map[string]any{"network": "hysteria"}, true, also(overTLS.server["tlsSettings"].(map[string]any), "alpn", []string{"h3"})), "hysteriaSettings", map[string]any{"version": 2}),
		also(secured(map[string]any{"network": "hysteria"}, true, overTLS.client["tlsSettings"].(map[string]any)), "hysteriaSettings", map[string]any{"version": 2, "auth": uuid}),
	}}
	quic := also(secure, "alpn", []any{"h3"})
	return []costKind{
		{kindVLESS("", streams{}), "VLESS", false, true, withUsers("vless", "", nil), false},
		{kindVLESS("", overTLS), "VLESS, TLS", false, true, withUsers("vless", "", map[string]any{"tls": secure}), false},
		{kindVLESS("xtls-rprx-vision", reality), "VLESS, REALITY, Vision, TLS 1.3 inside", true, false, withUsers("vless", "xtls-rprx-vision", map[string]any{"tls": realityTLS}), false},
		{kindTrojan(overTLS), "Trojan, TLS", false, true, withUsers("trojan", "", map[string]any{"tls": secure}), false},
		{shadowsocks, "Shadowsocks 2022", false, true, map[string]any{"type": "shadowsocks", "method": shadowsocks.settings["method"], "password": serverKey, "users": []any{map[string]any{"name": "a", "password": key}}}, false},
		{kindSOCKS(), "SOCKS 5", false, true, map[string]any{"type": "socks", "users": []any{map[string]any{"username": uuid, "password": uuid}}}, false},
		{hysteria, "Hysteria 2", false, true, withUsers("hysteria2", "", map[string]any{"tls": quic}), false},
		{kindWireGuard(b), "WireGuard", false, true, nil, true},
	}
}

// also returns a copy of object with one member more.
func also(object map[string]any, name string, value any) map[string]any {
	object = maps.Clone(object)
	if object == nil {
		object = map[string]any{}
	}
	return with(object, name, value)
}

// costServer is one of the servers that are compared, with a stock client of its own.
type costServer struct {
	name   string
	pid    int
	client *Client
	target string // the address that clients ask for
	udp    *net.UDPConn
	costs  map[string][]float64 // by figure
}

// The figures of the table.
var costFigures = []string{"down, CPU s/GB", "up, CPU s/GB", "10,000 opened, CPU s", "UDP packets/CPU s", "10,000 idle, MB"}

// BenchmarkCost compares what the same work costs the worker, a stock Xray and sing-box, by
// protocol: medians of rounds in which the servers take turns. It prints the table of
// docs/performance.md. SINGBOX_BIN names sing-box; without it, its columns are missing.
func BenchmarkCost(b *testing.B) {
	raiseFiles(b)
	if os.Getenv("SINGBOX_BIN") == "" {
		b.Log("SING_BOX IS NOT COMPARED: SINGBOX_BIN does not name its program")
	}
	var table strings.Builder
	for _, k := range costKinds(b) {
		b.Run(k.name, func(b *testing.B) {
			idle := idleCosts(b, k)
			servers, secure := startCost(b, k)
			for i, s := range servers {
				s.costs[costFigures[4]] = []float64{idle[i]}
			}
			for round := 0; b.Loop(); round++ {
				for i := range servers {
					measureCost(b, k, servers[(i+round)%len(servers)], secure)
				}
			}
			table.WriteString(costRows(k, servers))
		})
	}
	fmt.Printf("| protocol | server | %s |\n|---|---|%s\n%s", strings.Join(costFigures, " | "), strings.Repeat("---|", len(costFigures)), table.String())
}

// startCost starts the servers and their clients.
func startCost(b *testing.B, k costKind) ([]*costServer, *tlsTarget) {
	b.Helper()
	r := newBenchPair(b, k.protocolKind)
	uuids := benchUUIDs(1)
	target, echo := benchTarget(b), benchEcho(b)
	address, echoHost := target.Addr(), echo.IP.String()
	if k.tunnel {
		address, echoHost = net.JoinHostPort(costFar, "80"), costFar
		r.more = redirected(target, echo)
	}
	r.startAgent(b)
	r.serve(b, uuids)
	benchCheck(b, r.core.applied(b.Context()))
	if state.Protocols[k.protocol].Listens == state.OnUDP {
		r.startStockUDP(b, uuids)
	} else {
		r.startStock(b, uuids)
	}
	servers := []*costServer{{name: "node-agent", pid: r.worker(b).PID}, {name: "Xray", pid: r.stock.PID()}}
	ports := []int{r.ourPort, r.itsPort}
	if path := os.Getenv("SINGBOX_BIN"); path != "" && k.singBox != nil {
		pid, port := startSingBox(b, path, r.dir, k.singBox)
		servers, ports = append(servers, &costServer{name: "sing-box", pid: pid}), append(ports, port)
	}
	for i, s := range servers {
		s.costs, s.target = map[string][]float64{}, address
		local, err := FreePort()
		benchCheck(b, err)
		s.client, err = NewClient(b.Context(), r.progs, filepath.Join(r.dir, "client of "+s.name), r.kind.outbound(ports[i], uuids[0]), map[string]any{
			"listen": "127.0.0.1", "port": local, "protocol": "dokodemo-door",
			"settings": map[string]any{"address": echoHost, "port": echo.Port, "network": "udp"},
		})
		benchCheck(b, err)
		b.Cleanup(s.client.Kill)
		s.udp, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: local})
		benchCheck(b, err)
		b.Cleanup(func() { _ = s.udp.Close() })
	}
	for _, s := range servers { // those that listen on UDP cannot be knocked at
		if err := Eventually(b.Context(), func() error { return s.client.Exchange(address, 0, 1) }); err != nil {
			b.Fatalf("%s carries nothing: %v; the client says:\n%s", s.name, err, s.client.Log())
		}
	}
	return servers, newTLSTarget(b, newCert(b))
}

// redirected has outbounds that lead all connections to the target and all datagrams to the echo.
func redirected(target *Target, echo *net.UDPAddr) map[string]any {
	to := func(tag, address string) map[string]any {
		return map[string]any{"tag": tag, "protocol": "freedom", "settings": map[string]any{"redirect": address, "finalRules": []any{map[string]any{"action": "allow"}}}}
	}
	return map[string]any{
		"outbounds": []any{to("tcp", target.Addr()), to("udp", echo.String())},
		"routing":   map[string]any{"rules": []any{map[string]any{"network": "udp", "outboundTag": "udp"}}},
	}
}

// startSingBox starts a sing-box with one inbound, and returns its pid and port.
func startSingBox(b *testing.B, path, dir string, inbound map[string]any) (pid, port int) {
	b.Helper()
	port, err := FreePort()
	benchCheck(b, err)
	config, err := json.Marshal(map[string]any{
		"log":      map[string]any{"level": "error"},
		"inbounds": []any{also(also(also(inbound, "listen", "127.0.0.1"), "listen_port", port), "tag", "in")},
	})
	benchCheck(b, err)
	file := filepath.Join(dir, "sing-box.json")
	benchCheck(b, os.WriteFile(file, config, 0o600))
	if out, err := exec.Command(path, "check", "-c", file).CombinedOutput(); err != nil {
		b.Fatalf("sing-box: %v: %s", err, out)
	}
	server, err := start(filepath.Join(dir, "sing-box.log"), path, "run", "-c", file)
	benchCheck(b, err)
	b.Cleanup(server.Kill)
	return server.PID(), port
}

// benchEcho sends datagrams back.
func benchEcho(b *testing.B) *net.UDPAddr {
	b.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	benchCheck(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDP(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDP(buffer[:n], from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr)
}

// measureCost adds one figure of each kind to the server's.
func measureCost(b *testing.B, k costKind, s *costServer, secure *tlsTarget) {
	b.Helper()
	cost := func(figure string, per float64, work func()) {
		before := processorTime(b, s.pid)
		work()
		s.costs[figure] = append(s.costs[figure], (processorTime(b, s.pid)-before)/per)
	}
	conn := s.dialForBytes(b, k, secure)
	defer conn.Close()
	cost(costFigures[0], costBytes/1e9, func() { benchCheck(b, Exchange(conn, 0, costBytes)) })
	cost(costFigures[1], costBytes/1e9, func() { benchCheck(b, Exchange(conn, costBytes, 1)) })
	cost(costFigures[2], costOpens/1e4, func() {
		for range costOpens {
			opened := s.dial(b, k, secure)
			benchCheck(b, Exchange(opened, 0, 1))
			benchCheck(b, opened.Close())
		}
	})
	if k.udp {
		before := processorTime(b, s.pid)
		n := exchangeUDP(b, s.udp)
		if n == 0 {
			b.Logf("%s, %s: NO DATAGRAM CAME BACK", k.name, s.name)
			return
		}
		s.costs[costFigures[3]] = append(s.costs[costFigures[3]], 2*float64(n)/(processorTime(b, s.pid)-before))
	}
}

// dialForBytes returns a connection that has moved bytes. With Vision, it is the first one that the
// server splices, or the last of costTries: a stock Xray splices half of them (docs/architecture.md).
func (s *costServer) dialForBytes(b *testing.B, k costKind, secure *tlsTarget) net.Conn {
	b.Helper()
	for try := 1; ; try++ {
		conn := s.dial(b, k, secure)
		benchCheck(b, Exchange(conn, 0, 1<<20))
		if !k.vision {
			return conn
		}
		read := bytesRead(b, s.pid)
		benchCheck(b, Exchange(conn, 0, probeBytes))
		if try == costTries || float64(bytesRead(b, s.pid)-read) < splicedAtMost*probeBytes {
			return conn
		}
		benchCheck(b, conn.Close())
	}
}

func (s *costServer) dial(b *testing.B, k costKind, secure *tlsTarget) net.Conn {
	b.Helper()
	var conn net.Conn
	var err error
	if k.vision {
		conn, err = secure.dialTLS(s.client)
	} else {
		conn, err = s.client.Dial(s.target)
	}
	benchCheck(b, err)
	return conn
}

// exchangeUDP sends datagrams for costUDP and returns how many came back.
func exchangeUDP(b *testing.B, conn *net.UDPConn) int {
	b.Helper()
	datagram, buffer := make([]byte, costDatagram), make([]byte, 2048)
	back := 0
	for end := time.Now().Add(costUDP); time.Now().Before(end); {
		for range costWindow {
			_, err := conn.Write(datagram)
			benchCheck(b, err)
		}
		benchCheck(b, conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		for range costWindow {
			if _, err := conn.Read(buffer); err != nil {
				break // some are lost
			}
			back++
		}
	}
	return back
}

// idleCosts opens connections through each server, uses each for one byte and holds them, and returns by
// how many megabytes each server's memory grows for 10,000 of them. All servers rest at the same time. They
// have done nothing before: a worker gives back the garbage of earlier work, and a stock Xray would use it
// again. They do nothing afterwards: connections over one QUIC connection end some time after their close,
// and a client may have 1,024 of them.
func idleCosts(b *testing.B, k costKind) (grown []float64) {
	b.Helper()
	servers, _ := startCost(b, k)
	resident := func() (sizes []float64) {
		time.Sleep(atRest)
		for _, s := range servers {
			size, err := memory(s.pid, "VmRSS")
			benchCheck(b, err)
			sizes = append(sizes, size)
		}
		return sizes
	}
	before := resident()
	for _, s := range servers {
		for range costIdle {
			conn, err := s.client.Dial(s.target)
			benchCheck(b, err)
			defer conn.Close()
			benchCheck(b, Exchange(conn, 0, 1))
		}
	}
	for i, after := range resident() {
		grown = append(grown, (after-before[i])*1e4/costIdle)
	}
	return grown
}

// costRows returns the rows of a protocol.
func costRows(k costKind, servers []*costServer) string {
	var rows strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&rows, "| %s | %s |", k.name, s.name)
		for _, figure := range costFigures {
			switch values := s.costs[figure]; {
			case len(values) == 0:
				rows.WriteString(" |")
			case median(values) >= 100:
				fmt.Fprintf(&rows, " %.0f |", median(values))
			default:
				fmt.Fprintf(&rows, " %.2f |", median(values))
			}
		}
		rows.WriteString("\n")
	}
	return rows.String()
}
