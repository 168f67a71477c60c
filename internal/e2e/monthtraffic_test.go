package e2e

import (
	"encoding/json"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"nodeagent/coreapi"
)

// exchange moves bytes through a node, a quarter of them up. question is what the target's protocol adds.
func (m *month) exchange(s *monthSub, node int, bytes int64) error {
	dialer, err := proxy.SOCKS5("tcp", m.socks, &proxy.Auth{User: s.account(node), Password: s.account(node)}, proxy.Direct)
	if err != nil {
		return err
	}
	conn, err := dialer.Dial("tcp", m.target.Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	return Exchange(conn, bytes/4, bytes-bytes/4-question)
}

const question = 16 // bytes up that begin an exchange

// visit is a client on a node on one day.
type visit struct {
	sub   *monthSub
	node  int
	bytes int64
	err   error
}

// traffic lets each client move bytes on two of the nodes at a time. Who is not let in tries, and must
// not be served. by are Core's subscriptions before that; nil while Core is away.
func (m *month) traffic(day int, by map[int64]coreapi.Subscription) {
	m.t.Helper()
	var serves [monthNodes]bool
	for node := range serves {
		serves[node] = m.away || m.serves(node) // while Core is away, it can't be asked
	}
	var visits []*visit
	for i, s := range m.subs[:monthUsers] {
		if s.kind == lived && i%8 == 7 && day < 8 {
			continue // they come later, and are on hold until then
		}
		bytes := int64(20_000 + 700*((i+day)%50))
		for node := range serves {
			if (i+node+day)%monthNodes != 0 {
				visits = append(visits, &visit{sub: s, node: node, bytes: bytes})
			}
		}
	}
	m.move(visits)
	var failed []*visit
	for _, v := range visits {
		switch let := m.away || serves[v.node] && letIn(by[v.sub.id]); {
		case !let && v.err == nil:
			m.t.Fatalf("on day %d subscription %d, which is %s, was served on node %d, which serves: %t", day, v.sub.id, by[v.sub.id].Status, v.node, serves[v.node])
		case !let:
		case v.err == nil:
			m.count(v)
		default:
			v.sub.tried += v.bytes
			v.sub.usedTried += v.bytes * multiplier(v.node)
			failed = append(failed, v)
		}
	}
	for _, v := range failed {
		m.cut++
		// A client is ended by a grant close to its limit alone. While Core is away, the test does not know.
		if is := by[v.sub.id]; !m.away && !v.sub.near(is) {
			m.t.Fatalf("on day %d subscription %d, which is %s with %d of %d and %d bytes used, was refused on node %d: %v",
				day, is.ID, is.Status, is.UsedBytes, v.sub.limit, v.sub.extra, v.node, v.err)
		}
	}
}

func letIn(s coreapi.Subscription) bool {
	return s.Status == coreapi.Active || s.Status == coreapi.OnHold
}

// near reports whether a subscription can have a grant: it moves at most 110,000 bytes in a minute as
// limits count them, and Core gives grants below eight times that, at the most.
func (s *monthSub) near(is coreapi.Subscription) bool {
	return s.limit > 0 && s.limit+s.extra-is.UsedBytes < 16*160_000
}

// count counts a visit for its subscription.
func (m *month) count(v *visit) {
	s, used := v.sub, v.bytes*multiplier(v.node)
	s.sent += v.bytes
	s.used += used
	if m.away || v.node == awayNode && m.relay.isCut() {
		s.late += v.bytes
		s.usedLate += used
	}
	if s.kind == lived && s.ends.IsZero() {
		s.ends = m.clock.now().Truncate(time.Minute).Add(lifeDays * 24 * time.Hour)
	}
}

// arrive counts what was late, because Core or an agent is back. begin has taken out of it what belongs to
// a period that is over.
func (m *month) arrive() {
	for _, s := range m.subs {
		s.late, s.usedLate = 0, 0
	}
}

// move makes visits, some at a time.
func (m *month) move(visits []*visit) {
	var wait sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, v := range visits {
		slots <- struct{}{}
		wait.Go(func() {
			v.err = m.exchange(v.sub, v.node, v.bytes)
			<-slots
		})
	}
	wait.Wait()
}

// renew does what an operator does for users who are limited or whose time is over, and gives some other
// credentials: those of before let nobody in then.
func (m *month) renew(day int, by map[int64]coreapi.Subscription) {
	m.t.Helper()
	var rotated, renewed []*visit
	for i, s := range m.subs {
		id := strconv.FormatInt(s.id, 10)
		var err error
		switch is := by[s.id]; {
		case is.Status == coreapi.Limited && i%10 == 2:
			_, _, err = m.api.TopUpSubscription(m.ctx, id, coreapi.TopUp{Bytes: 200_000})
			s.extra += 200_000
		case is.Status == coreapi.Limited && i%10 == 4:
			// What was moved in the minute of the reset counts after it too: the next minute has begun.
			_, _, err = m.api.ResetSubscription(m.ctx, id)
			s.used, s.usedTried, s.extra = 0, 0, 0
		case is.Status == coreapi.Expired && i%8 == 3:
			_, _, err = m.api.ExtendSubscription(m.ctx, id, coreapi.Extension{Seconds: 60 * 24 * 3600})
			s.ends = time.Time{} // Core says when
		case letIn(is) && day == 2 && i%20 == 3: // of the kind lived: a grant ends nobody of it
			var with coreapi.SubscriptionDetails
			with, _, err = m.api.RotateSubscription(m.ctx, id)
			must(m.t, err)
			s.uuid = with.UUID
			rotated = append(rotated, &visit{sub: s, node: plainNode, bytes: 1000})
			continue
		default:
			continue
		}
		must(m.t, err)
		m.renewed++
		renewed = append(renewed, &visit{sub: s, node: plainNode, bytes: 1000})
	}
	now := m.agree()
	m.move(rotated)
	for _, v := range rotated {
		if v.err == nil {
			m.t.Fatalf("subscription %d is served with the credentials of before", v.sub.id)
		}
	}
	if len(rotated) > 0 {
		m.connect()
	}
	for _, v := range append(rotated, renewed...) {
		if !letIn(now[v.sub.id]) {
			m.t.Fatalf("subscription %d was renewed, and is %s", v.sub.id, now[v.sub.id].Status)
		}
		must(m.t, Eventually(m.ctx, func() error {
			if v.err = m.exchange(v.sub, v.node, v.bytes); v.err != nil {
				v.sub.tried += v.bytes
				v.sub.usedTried += v.bytes * multiplier(v.node)
			}
			return v.err
		}))
		m.count(v)
	}
	m.clock.add(61 * time.Second)
	m.agree()
}

// relay passes connections on to an address, until it is cut.
type relay struct {
	listener net.Listener
	mu       sync.Mutex
	gone     bool
	open     map[net.Conn]bool
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	r := &relay{listener: l, open: map[net.Conn]bool{}}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil || !r.keep(near, far) {
				_ = near.Close()
				continue
			}
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_, _ = to.Close(), from.Close()
			}
			go pass(far, near)
			go pass(near, far)
		}
	}()
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

func (r *relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		if r.gone {
			_ = c.Close()
		}
		r.open[c] = true
	}
	return !r.gone
}

func (r *relay) isCut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}

// cut ends all connections, and passes no other one on.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	for c := range r.open {
		_ = c.Close()
	}
	r.open = map[net.Conn]bool{}
}

func (r *relay) restore() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = false
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	return text
}
