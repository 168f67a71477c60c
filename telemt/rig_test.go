package telemt

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/e2e"
	"nodeagent/internal/supervise"
	"nodeagent/internal/telegram"
	"nodeagent/telemt/api"
	"nodeagent/telemt/service"
)

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// secretDigits match a client's secret, and nothing else that the tests log.
var secretDigits = regexp.MustCompile("[0-9A-Fa-f]{32}")

// rig is an engine whose telemts connect to a stand-in for Telegram, and what the engine
// has reported.
type rig struct {
	t      *testing.T
	engine *Engine
	target *e2e.Target
	centre *telegram.Centre
	state  string
	config Config
	stop   func()
	leave  func() // ends the engine as a restart of the daemon does
	logs   *strings.Builder

	mu       sync.Mutex
	counted  map[uint32]api.Octets
	presence []Presence
	closed   map[uint32]bool
	failures []service.Failure
	noted    []error
}

func newRig(t *testing.T, binary string, adjust ...func(*Config)) *rig {
	t.Helper()
	return newRigIn(t, t.TempDir(), binary, adjust...)
}

func newRigIn(t *testing.T, state, binary string, adjust ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, state: state, counted: map[uint32]api.Octets{}, closed: map[uint32]bool{}, logs: &strings.Builder{}}
	var err error
	if r.target, err = e2e.NewTarget(); err != nil {
		t.Fatal(err)
	}
	if r.centre, err = telegram.NewCentre(r.target.Serve); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.target.Close(); _ = r.centre.Close() })
	r.config = Config{Binary: binary, StateDir: r.state, DrainTimeout: 3 * time.Second}
	for _, a := range adjust {
		a(&r.config)
	}
	r.run()
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Log(r.logs.String())
		}
		if found := secretDigits.FindString(r.logs.String()); found != "" {
			t.Errorf("the log has the secret %s", found)
		}
	})
	return r
}

// run starts an engine. With Config.CountersEpoch, its telemts outlive it.
func (r *rig) run() {
	r.t.Helper()
	deps := Deps{
		Log: slog.New(slog.NewTextHandler(logWriter{r}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Count: func(slot uint32, up, down uint64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			o := r.counted[slot]
			r.counted[slot] = api.Octets{Up: o.Up + up, Down: o.Down + down}
		},
		Presence: func(p Presence) { r.mu.Lock(); defer r.mu.Unlock(); r.presence = append(r.presence, p) },
		SlotsClosed: func(slots []uint32) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, slot := range slots {
				r.closed[slot] = true
			}
		},
		Failed: func(f service.Failure) { r.mu.Lock(); defer r.mu.Unlock(); r.failures = append(r.failures, f) },
		Noted:  func(err error) { r.mu.Lock(); defer r.mu.Unlock(); r.noted = append(r.noted, err) },
	}
	if r.config.CountersEpoch != "" {
		deps.Octets = func(slot uint32) (up, down uint64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.counted[slot].Up, r.counted[slot].Down
		}
	}
	var err error
	if r.engine, err = New(r.config, deps); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	engine := r.engine
	go func() { _ = engine.Run(ctx); close(done) }()
	r.stop = sync.OnceFunc(func() { cancel(nil); <-done })
	r.leave = func() { cancel(supervise.ErrLeave); <-done }
}

// logWriter writes to the rig's log.
type logWriter struct{ r *rig }

func (l logWriter) Write(p []byte) (int, error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.r.logs.Write(p)
}

func (r *rig) port() int {
	port, err := e2e.FreePort()
	if err != nil {
		r.t.Fatal(err)
	}
	return port
}

// inbound returns the JSON of an inbound in secure mode. more has further members, as in
// `"adTag":"…"`.
func inbound(id int64, port int, more string, clients ...string) string {
	if more != "" {
		more = "," + more
	}
	return fmt.Sprintf(`{"nodeProtocolId":%d,"tag":"mtproto-%d","listen":"127.0.0.1","port":%d,"modes":{"secure":true}%s,"clients":[%s]}`,
		id, id, port, more, strings.Join(clients, ","))
}

// secretOf returns a client's secret, which is different for each name and version.
func secretOf(name string, version int) []byte {
	raw := make([]byte, 16)
	copy(raw, fmt.Sprintf("%d-%s", version, name))
	return raw
}

func client(name string, more ...string) string { return clientVersion(name, 1, more...) }

func clientVersion(name string, version int, more ...string) string {
	members := ""
	for _, m := range more {
		members += "," + m
	}
	return fmt.Sprintf(`{"id":%q,"secret":%q%s}`, name, hex.EncodeToString(secretOf(name, version)), members)
}

// service returns a Service with these inbounds, an upstream on loopback, and the stand-in
// for Telegram. Each client of each inbound has a slot of its own; see slot.
func (r *rig) service(inbounds ...string) service.Service { return r.serviceWith("", inbounds...) }

// serviceWith is service with further keys in advanced, as in `,"key":1`.
func (r *rig) serviceWith(advanced string, inbounds ...string) service.Service {
	r.t.Helper()
	var centres []string
	for _, dc := range []string{"1", "2", "3", "4", "5", "203"} {
		centres = append(centres, fmt.Sprintf(`%q:[%q]`, dc, r.centre.Addr()))
	}
	s, err := service.Parse(json.RawMessage(fmt.Sprintf(`{"inbounds":[%s],"upstreams":[{"type":"direct","bindAddresses":["127.0.0.1"]}],
		"advanced":{"dc_overrides":{%s}%s}}`, strings.Join(inbounds, ","), strings.Join(centres, ","), advanced)))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range s.Inbounds {
		for j := range s.Inbounds[i].Clients {
			c := &s.Inbounds[i].Clients[j]
			c.Slot = slot(s.Inbounds[i].NodeProtocolID, c.ID)
		}
	}
	return s
}

var (
	slotsMu sync.Mutex
	slots   = map[string]uint32{}
)

// slot returns the slot of a client of an inbound, the same at every call. No client has slot 0: bytes
// in it belong to a client that has lost its slot.
func slot(protocol int64, name string) uint32 {
	slotsMu.Lock()
	defer slotsMu.Unlock()
	key := fmt.Sprint(protocol, " ", name)
	if _, known := slots[key]; !known {
		slots[key] = uint32(len(slots) + 1)
	}
	return slots[key]
}

func (r *rig) apply(s service.Service) {
	r.t.Helper()
	if err := r.engine.Apply(r.t.Context(), s); err != nil {
		r.t.Fatal(err)
	}
}

// dial connects as the client, exchanges one byte in each direction, and returns the
// connection.
func (r *rig) dial(port int, name string) net.Conn {
	r.t.Helper()
	conn, err := r.tryDial(port, secretOf(name, 1))
	if err != nil {
		r.t.Fatalf("client %s on port %d: %v", name, port, err)
	}
	return conn
}

// tries is dial for a client that may be rejected.
func (r *rig) tries(port int, name string) (net.Conn, bool) {
	conn, err := r.tryDial(port, secretOf(name, 1))
	return conn, err == nil
}

func (r *rig) tryDial(port int, secret []byte) (net.Conn, error) {
	conn, err := telegram.Dial(fmt.Sprintf("127.0.0.1:%d", port), secret, 2)
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return nil, err
	}
	err = e2e.Exchange(conn, 1, 1)
	_ = conn.SetDeadline(time.Time{})
	return conn, err
}

// exchange moves bytes over a connection that must be open. telemt 3.4.25 can hold back
// the end of a transfer, if one of its sockets was full meanwhile, until more bytes come.
// The transfers of the tests therefore fit into a socket's buffer.
func (r *rig) exchange(conn net.Conn, up, down int64) {
	r.t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	if err := e2e.Exchange(conn, up, down); err != nil {
		r.t.Fatalf("a connection that should be open: %v", err)
	}
}

// cut waits until the connection is closed by telemt.
func (r *rig) cut(conn net.Conn, within time.Duration) {
	r.t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		r.t.Fatal(err)
	}
	_, err := conn.Read(make([]byte, 1))
	if timeout, is := err.(net.Error); err == nil || is && timeout.Timeout() { //nolint:errorlint // a net.Error is asked, not matched
		r.t.Fatalf("a connection that should be closed within %s is open (%v)", within, err)
	}
}

// eventually collects until the condition is true.
func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within %s; status %+v", what, patience, r.engine.Status())
		}
		r.engine.Collect(r.t.Context())
	}
}

func (r *rig) inbound(tag string) InboundStatus {
	for _, in := range r.engine.Status().Inbounds {
		if in.Tag == tag {
			return in
		}
	}
	return InboundStatus{}
}

// wantCounted waits until the client's slot has what the client has moved: the payload,
// and 16 bytes up for each exchange.
func (r *rig) wantCounted(slot uint32, exchanges, up, down uint64) {
	r.t.Helper()
	want := api.Octets{Up: 16*exchanges + up, Down: down}
	is := func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.counted[slot] == want }
	for deadline := time.Now().Add(5 * time.Second); !is() && time.Now().Before(deadline); {
		r.engine.Collect(r.t.Context())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counted[slot] != want {
		r.t.Errorf("slot %d has %+v, want %+v", slot, r.counted[slot], want)
	}
}

// signal signals a telemt. The PID must be one: 0 would be this process's whole group.
func (r *rig) signal(pid int, s syscall.Signal) {
	r.t.Helper()
	if pid <= 1 {
		r.t.Fatalf("no telemt has the pid %d", pid)
	}
	if err := syscall.Kill(pid, s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) isClosed(slot uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed[slot]
}

// failedWith reports whether a failure with that code was reported.
func (r *rig) failedWith(code service.FailureCode) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.failures {
		if f.Code == code {
			return true
		}
	}
	return false
}

// presenceOf returns the reported changes of a slot's presence, as +address and -address.
func (r *rig) presenceOf(slot uint32) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, p := range r.presence {
		if p.Slot != slot {
			continue
		}
		sign := map[bool]string{true: "+", false: "-"}[p.Online]
		if p.IP == (netip.Addr{}) {
			all = append(all, sign)
		} else {
			all = append(all, sign+p.IP.String())
		}
	}
	return strings.Join(all, " ")
}
