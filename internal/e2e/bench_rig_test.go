package e2e

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// benchPair is an agent and a stock Xray that serve the same inbound. The stock Xray has its
// statistics on, as an operator who counts traffic has.
type benchPair struct {
	progs   Programs
	dir     string
	kind    protocolKind
	core    *scriptedCore
	agent   *Agent
	stock   *process
	ourPort int
	itsPort int
	// more are other members of the servers' configurations than inbounds.
	more map[string]any
}

func benchCheck(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// benchPrograms returns the programs of the tests: linking others would take seconds.
func benchPrograms(b *testing.B) Programs {
	b.Helper()
	buildOnce.Do(buildPrograms)
	benchCheck(b, buildErr)
	return built
}

// newBenchPair starts neither server.
func newBenchPair(b *testing.B, kind protocolKind) *benchPair {
	b.Helper()
	r := &benchPair{progs: benchPrograms(b), dir: b.TempDir(), kind: kind}
	var err1, err2 error
	r.ourPort, err1 = FreePort()
	r.itsPort, err2 = FreePort()
	benchCheck(b, errors.Join(err1, err2))
	return r
}

// accounts returns the clients' objects of an inbound, with their emails.
func (r *benchPair) accounts(uuids []string) []any {
	accounts := make([]any, len(uuids))
	for i, uuid := range uuids {
		accounts[i] = r.kind.account(uuid)
	}
	return accounts
}

// startAgent starts an agent that has no configuration yet, with a new Core where there is none.
func (r *benchPair) startAgent(b *testing.B) {
	b.Helper()
	if r.core == nil {
		r.core = newScriptedCore(b)
	}
	dir, err := os.MkdirTemp(r.dir, "agent-*")
	benchCheck(b, err)
	r.agent, err = NewAgent(b.Context(), r.progs, dir, "", "--core", r.core.URL, "--code", "any")
	benchCheck(b, err)
	benchCheck(b, r.agent.Start(b.Context()))
	agent := r.agent // another one may take its place
	b.Cleanup(func() {
		agent.Kill()
		if b.Failed() {
			b.Logf("log of the agent:\n%s", agent.Log())
		}
	})
}

// serve publishes the inbound with the clients.
func (r *benchPair) serve(b *testing.B, uuids []string) {
	b.Helper()
	refs := make(map[string]wire.ClientRef, len(uuids))
	for i, uuid := range uuids {
		refs[uuid] = wire.ClientRef{UserID: int64(i + 1)}
	}
	in := with(withClients(r.kind.config(r.ourPort), r.accounts(uuids)), "tag", "in-1")
	benchCheck(b, r.core.publish(refs, also(r.more, "inbounds", []any{in})))
}

func (r *benchPair) worker(b *testing.B) (status struct{ PID, Goroutines int }) {
	b.Helper()
	var all struct {
		Engines struct {
			Xray struct{ PID, Goroutines int }
		}
	}
	benchCheck(b, outputJSON(b.Context(), &all, r.agent.path, "status", "--runtime-dir", r.agent.file("run")))
	return all.Engines.Xray
}

// startStock starts the stock server, waits until it listens on TCP, and returns how long that
// took.
func (r *benchPair) startStock(b *testing.B, uuids []string) time.Duration {
	b.Helper()
	began := time.Now()
	r.startStockUDP(b, uuids)
	benchCheck(b, Eventually(b.Context(), func() error {
		if r.stock.ended() {
			return fmt.Errorf("the stock server ended: %s", r.stock.Log())
		}
		conn, err := net.Dial("tcp", loopback(r.itsPort))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}))
	return time.Since(began)
}

// startStockUDP starts the stock server and does not wait.
func (r *benchPair) startStockUDP(b *testing.B, uuids []string) {
	b.Helper()
	in := with(withClients(r.kind.config(r.itsPort), r.accounts(uuids)), "tag", "in-1")
	all := map[string]any{
		"log": map[string]any{"loglevel": "warning", "access": "none"}, "stats": map[string]any{},
		"policy":   map[string]any{"levels": map[string]any{"0": map[string]any{"statsUserUplink": true, "statsUserDownlink": true}}},
		"inbounds": []any{in}, "outbounds": []any{json.RawMessage(freedomToLoopback)},
	}
	maps.Copy(all, r.more)
	config, err := json.Marshal(all)
	benchCheck(b, err)
	file := filepath.Join(r.dir, "stock.json")
	benchCheck(b, os.WriteFile(file, config, 0o600))
	r.stock, err = start(filepath.Join(r.dir, "stock.log"), r.progs.Xray, "run", "-c", file)
	benchCheck(b, err)
	b.Cleanup(r.stock.Kill)
}

// start starts both servers with one client, and a stock client for each.
func (r *benchPair) start(b *testing.B) (ours, stock *Client) {
	b.Helper()
	uuids := benchUUIDs(1)
	r.startAgent(b)
	r.serve(b, uuids)
	benchCheck(b, r.core.applied(b.Context()))
	r.startStock(b, uuids)
	client := func(name string, port int) *Client {
		c, err := NewClient(b.Context(), r.progs, filepath.Join(r.dir, name), r.kind.outbound(port, uuids[0]))
		benchCheck(b, err)
		b.Cleanup(c.Kill)
		return c
	}
	return client("ours", r.ourPort), client("reference", r.itsPort)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func benchUUIDs(n int) []string {
	uuids := make([]string, n)
	for i := range uuids {
		uuids[i] = benchUUID(i)
	}
	return uuids
}

func benchUUID(i int) string {
	return fmt.Sprintf("%08x-1111-4111-8111-%012x", uint32(i)*2654435761, i)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// Commands of VLESS.
const (
	commandTCP = 1
	commandMux = 3
)

// openVLESS opens a connection through a plain VLESS inbound, without a client program, and
// waits for one byte to be echoed. The caller closes the connection.
func openVLESS(port int, uuid string, target *net.TCPAddr) (net.Conn, error) {
	request := binary.BigEndian.AppendUint16([]byte{commandTCP}, uint16(target.Port))
	request = append(append(request, 1), target.IP.To4()...)
	return helloVLESS(port, uuid, append(request, 'x'), func(answer io.Reader) error {
		_, err := io.ReadFull(answer, make([]byte, 1))
		return err
	})
}

// helloVLESS sends a request without addons, and the bytes of request after it, to a plain
// VLESS inbound. read reads what follows the header of the answer.
func helloVLESS(port int, uuid string, request []byte, read func(answer io.Reader) error) (net.Conn, error) {
	id, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil {
		return nil, fmt.Errorf("read UUID %q: %w", uuid, err)
	}
	hello := append([]byte{0}, id...) // version
	hello = append(append(hello, 0), request...)
	conn, err := net.Dial("tcp", loopback(port))
	if err != nil {
		return nil, err
	}
	err = conn.SetDeadline(time.Now().Add(Patience))
	if err == nil {
		_, err = conn.Write(hello)
	}
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, 2)) // version, no addons
	}
	if err == nil {
		err = read(conn)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// openCarrier opens a mux carrier through a plain VLESS inbound, with n connections that each
// have one byte echoed. The frames are those of Mux.Cool: the length of the metadata, session,
// status, option and target; then, if the option says so, the length of the data and the data.
func openCarrier(port int, uuid string, target *net.TCPAddr, n int) (net.Conn, error) {
	const (
		statusNew  = 1
		optionData = 1
		networkTCP = 1
		byIPv4     = 1
	)
	request := []byte{commandMux}
	for session := range n {
		request = append(request, 0, 12, 0, byte(session+1), statusNew, optionData, networkTCP)
		request = binary.BigEndian.AppendUint16(request, uint16(target.Port))
		request = append(append(request, byIPv4), target.IP.To4()...)
		request = append(request, 0, 1, 'x')
	}
	return helloVLESS(port, uuid, request, func(answer io.Reader) error {
		part := func() ([]byte, error) {
			var length [2]byte
			if _, err := io.ReadFull(answer, length[:]); err != nil {
				return nil, err
			}
			data := make([]byte, binary.BigEndian.Uint16(length[:]))
			_, err := io.ReadFull(answer, data)
			return data, err
		}
		for echoed := 0; echoed < n; {
			meta, err := part()
			if err != nil {
				return err
			}
			if len(meta) < 4 || meta[3]&optionData == 0 {
				return fmt.Errorf("a frame without data: % x", meta)
			}
			data, err := part()
			if err != nil {
				return err
			}
			echoed += len(data)
		}
		return nil
	})
}

// echoByte listens for connections, echoes the first byte of each, and keeps them open with
// little memory.
func echoByte(b *testing.B) *net.TCPAddr {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	benchCheck(b, err)
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var one [1]byte
				if _, err := io.ReadFull(conn, one[:]); err != nil {
					return
				}
				if _, err := conn.Write(one[:]); err == nil {
					_, _ = conn.Read(one[:]) // until the connection ends
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr)
}
