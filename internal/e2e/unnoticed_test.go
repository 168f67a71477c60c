package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The tests of this file end daemons in every way while clients move bytes without a pause. No
// client notices: no connection ends, none is refused, and every byte is counted once.
//
// UNNOTICED_ROUNDS is how often each kind of end comes (by default twice), and lets every protocol
// over every transport take part, or those whose names match UNNOTICED_ROWS, a regular expression.
// UNNOTICED_SEED repeats the random choices of a run.

// unnoticedLimit is how long one exchange of a connection may take: hundreds of connections move bytes at
// the same time, on a machine that does other things too.
const unnoticedLimit = 2 * time.Minute

// unnoticedRows are some of protocolRows in a short run, one of each protocol at least, and all of
// them in a long one.
func unnoticedRows() []protocolRow {
	if os.Getenv("UNNOTICED_ROUNDS") != "" {
		names := regexp.MustCompile(os.Getenv("UNNOTICED_ROWS"))
		return slices.DeleteFunc(protocolRows(), func(r protocolRow) bool { return !names.MatchString(r.name) })
	}
	var rows []protocolRow
	for _, r := range protocolRows() {
		switch r.name {
		case "vless over WebSocket and TLS", "vless over gRPC and TLS", "vless over XHTTP", "vless over XHTTP and TLS", "vless over XHTTP, stream-up, and TLS", "vless over XHTTP on HTTP/3", "vmess over TCP", "vmess over mKCP",
			"trojan over TLS", "shadowsocks AEAD", "shadowsocks 2022", "hysteria", "socks", "http", "vless with mux":
			rows = append(rows, r)
		}
	}
	return rows
}

// migrating runs a test again in a network namespace where the kernel moves connections whose handshake is
// under way to the next listener of their port, as the package's packaging/90-node-agent.conf has it. It
// returns false where that was done. Without root, the test runs where it is.
func migrating(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 {
		return true
	}
	return inside(t, "{ echo 1 >/proc/sys/net/ipv4/tcp_migrate_req || true; }")
}

// unnoticed is a node whose clients move bytes until quiet is called.
type unnoticed struct {
	*protocolWorld
	random *rand.Rand
	rounds int
	user   Subscription
	people []*unnoticedClient
	// rest is how long a connection rests at the most between two exchanges. All of them move some 500 times
	// a second: a machine with no processor to spare would be late for handshakes of new connections (4 s).
	rest   time.Duration
	stop   chan struct{}
	moving sync.WaitGroup
	probes atomic.Int64 // connections to a port of the node that were accepted
	comers []*newcomer
	flows  []*flow
	// flowing chooses the rows through which clients send datagrams too; nil for none.
	flowing func(protocolRow) bool
	drains  bool     // a worker drains: another outbound ends its connections over QUIC
	guests  []string // subscriptions that change has added, by UUID
}

// newcomer is a client that opens a connection, moves bytes, and closes it, again and again.
type newcomer struct {
	row    rowInbound
	target *Target
	client *Client
	visits atomic.Int64
}

type unnoticedClient struct {
	row    rowInbound
	target *Target
	conn   net.Conn
	moved  atomic.Int64 // exchanges
}

// newUnnoticed starts a node with an inbound of each row, once prepare has added to it, and its clients.
// UNNOTICED_CONNECTIONS is how many connections each of them has (by default one).
func newUnnoticed(t *testing.T, rows []protocolRow, prepare ...func(*unnoticed)) *unnoticed {
	t.Helper()
	each := environment(t, "UNNOTICED_CONNECTIONS", 1)
	rounds, seed := environment(t, "UNNOTICED_ROUNDS", 2), environment(t, "UNNOTICED_SEED", time.Now().UnixNano())
	t.Logf("UNNOTICED_SEED=%d UNNOTICED_ROUNDS=%d", seed, rounds)
	u := &unnoticed{protocolWorld: newProtocolWorld(t, rows), random: rand.New(rand.NewPCG(uint64(seed), 0)), rounds: int(rounds), stop: make(chan struct{})}
	u.waitLong()
	for _, do := range prepare {
		do(u)
	}
	u.user = u.subscriber("alice")
	u.start()
	for _, r := range u.rows {
		target, client := u.target(), u.clientOf(r, u.user)
		for range each {
			p := &unnoticedClient{row: r, target: target, conn: u.dial(client, target)}
			must(t, Exchange(p.conn, 0, 1)) // see TestProtocolsAndTransports
			u.people = append(u.people, p)
		}
		u.comers = append(u.comers, &newcomer{row: r, target: target, client: client})
	}
	for _, r := range u.rows {
		if u.flowing != nil && r.takesDatagrams() && u.flowing(r.protocolRow) {
			u.flows = append(u.flows, u.flowThrough(r))
		}
	}
	u.rest = time.Duration(len(u.people)+len(u.flows)) * 4 * time.Millisecond
	for _, p := range u.people {
		u.moving.Go(func() { u.move(p) })
	}
	for _, f := range u.flows {
		u.moving.Go(func() { u.flowOn(f) })
	}
	u.moving.Go(u.probe)
	u.moving.Go(u.come)
	t.Cleanup(u.halt)
	return u
}

// waitLong lets a worker without a daemon serve for longer than goOn waits for a connection: a connection that
// stands still is told, and not those that the worker's end has cut.
func (u *unnoticed) waitLong() {
	u.t.Helper()
	path := u.agent.file("config.toml")
	config, err := os.ReadFile(path)
	must(u.t, err)
	longer := bytes.Replace(config, []byte(`orphan_timeout = "2m"`), []byte(`orphan_timeout = "10m"`), 1)
	if bytes.Equal(longer, config) {
		u.t.Fatal("the configuration has no orphan_timeout of two minutes")
	}
	must(u.t, os.WriteFile(path, longer, 0o600))
}

// move moves bytes over one connection until the test stops it. The connection never ends.
func (u *unnoticed) move(p *unnoticedClient) {
	for {
		select {
		case <-u.stop:
			return
		case <-time.After(rand.N(u.rest)):
		}
		if err := exchangeWithin(p.conn, unnoticedLimit, rand.Int64N(50_000), rand.Int64N(100_000)); err != nil {
			u.t.Errorf("%s: the connection ended after %d exchanges: %v", p.row.name, p.moved.Load(), err)
			return
		}
		p.moved.Add(1)
	}
}

// probe connects with a port of the node again and again.
func (u *unnoticed) probe() {
	address := net.JoinHostPort("127.0.0.1", itoa(u.rows[0].at.Port))
	for {
		select {
		case <-u.stop:
			return
		case <-time.After(time.Millisecond):
		}
		conn, err := net.DialTimeout("tcp", address, Patience)
		if err != nil {
			u.t.Errorf("the node refused a connection, after %d that it took: %v", u.probes.Load(), err)
			return
		}
		_ = conn.Close()
		u.probes.Add(1)
	}
}

// come opens connections through each protocol in turn, from the client to the target. None is refused.
func (u *unnoticed) come() {
	for i := 0; ; i++ {
		select {
		case <-u.stop:
			return
		case <-time.After(10 * time.Millisecond):
		}
		n := u.comers[i%len(u.comers)]
		conn, err := n.client.Dial(n.target.Addr())
		if err == nil {
			err = errors.Join(exchangeWithin(conn, unnoticedLimit, 1000, 2000), conn.Close())
		}
		if err != nil {
			u.t.Errorf("%s: a new connection failed, after %d: %v", n.row.name, n.visits.Load(), err)
			return
		}
		n.visits.Add(1)
	}
}

func (u *unnoticed) halt() {
	select {
	case <-u.stop:
	default:
		close(u.stop)
	}
	u.moving.Wait()
}

// goOn waits until each client has moved bytes since it was called.
func (u *unnoticed) goOn() {
	u.t.Helper()
	type one struct {
		what  string
		count *atomic.Int64
		from  int64
	}
	var all []one // of all, before the first wait: one after the other would take as long as all rests together
	for _, p := range u.people {
		all = append(all, one{p.row.name + ": no exchange has ended", &p.moved, p.moved.Load()})
	}
	for _, f := range u.flows {
		all = append(all, one{f.row.name + ": no datagram has come back", &f.back, f.back.Load()})
	}
	for _, o := range all {
		must(u.t, Within(u.ctx, 2*unnoticedLimit, func() error {
			if u.t.Failed() || o.count.Load() > o.from+1 {
				return nil
			}
			return errors.New(o.what)
		}))
	}
}

// change changes the configuration: Core sends it while the next thing happens. Nothing that it changes
// concerns the clients.
func (u *unnoticed) change(number int) {
	u.t.Helper()
	var ignored any
	switch kind := u.random.IntN(4); {
	case kind == 0 && !u.drains:
		must(u.t, u.core.AddOutbound(u.ctx, "node", json.RawMessage(fmt.Sprintf(`{"tag":"more-%d","protocol":"freedom"}`, number))))
	case kind == 1:
		u.protocol()
	case kind == 2 && len(u.guests) > 0:
		must(u.t, u.core.Do(u.ctx, &ignored, "subscription", "disable", u.guests[0]))
		u.guests = u.guests[1:]
	default:
		u.guests = append(u.guests, u.subscriber(fmt.Sprintf("guest%d", number)).UUID)
	}
}

// pause waits a random while, so that the daemon is ended at any point of what it does.
func (u *unnoticed) pause(most time.Duration) {
	time.Sleep(time.Duration(u.random.Int64N(int64(most))))
}

// counted checks, once the clients have stopped, that each byte was counted once, and that each
// client was online once.
func (u *unnoticed) counted() {
	u.t.Helper()
	u.halt()
	for _, p := range u.people {
		_ = p.conn.Close()
	}
	u.stopAgent()
	want := map[Account]Traffic{}
	for _, p := range u.people {
		want[Account{u.user.UserID, p.row.at.ID}] = p.target.Traffic()
	}
	for _, f := range u.flows {
		who, bytes := Account{u.user.UserID, f.row.at.ID}, f.echo.bytes()
		want[who] = Traffic{Up: want[who].Up + bytes, Down: want[who].Down + bytes}
	}
	u.flowed()
	u.wantUsage(want)
	var visits, moved int64
	for _, n := range u.comers {
		visits += n.visits.Load()
	}
	for _, traffic := range want {
		moved += traffic.Up + traffic.Down
	}
	u.t.Logf("%d connections moved %d bytes without an end; %d new ones through %d inbounds and %d to a port were taken, none was refused",
		len(u.people), moved, visits, len(u.comers), u.probes.Load())
}

// Clients notice nothing of a daemon that is killed and restarted, also in the middle of changes.
func TestUnnoticedDaemon(t *testing.T) {
	if !migrating(t) {
		return
	}
	u := newUnnoticed(t, unnoticedRows())
	status, err := u.agent.Status(u.ctx)
	must(t, err)
	for round := range 2 * u.rounds {
		if u.random.IntN(2) == 0 {
			u.change(round)
		}
		u.pause(300 * time.Millisecond)
		if round%2 == 0 {
			u.agent.Crash()
		} else {
			must(t, u.agent.Leave())
		}
		u.goOn() // without a daemon
		must(t, u.agent.Start(u.ctx))
		now, err := u.agent.Status(u.ctx)
		must(t, err)
		if now.Engines.Xray.PID != status.Engines.Xray.PID || now.Engines.Xray.AdoptedAt == "" {
			t.Fatalf("round %d: worker %d runs, adopted at %q; before it was worker %d", round, now.Engines.Xray.PID, now.Engines.Xray.AdoptedAt, status.Engines.Xray.PID)
		}
		u.goOn()
		if t.Failed() {
			return
		}
	}
	u.synced()
	u.counted()
	u.wantVisits(u.user)
	u.wantOneVisit()
}

// wantOneVisit checks that no visit was cut in two.
func (u *unnoticed) wantOneVisit() {
	u.t.Helper()
	events, err := u.core.Events(u.ctx)
	must(u.t, err)
	have, want := map[string]int{}, map[string]int{}
	for _, e := range events {
		if e.UserID == u.user.UserID {
			have[e.Protocol+" "+e.EventType]++
		}
	}
	inbounds := map[int64]bool{}
	for _, p := range u.people {
		if !inbounds[p.row.at.ID] {
			inbounds[p.row.at.ID] = true
			want[p.row.protocol+" online"]++
			want[p.row.protocol+" offline"]++
		}
	}
	if !maps.Equal(have, want) {
		u.t.Errorf("the clients' events are %v, want %v", have, want)
	}
}
