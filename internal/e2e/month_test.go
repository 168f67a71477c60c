package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"nodeagent/coreapi"
)

// The nodes of the month. One counts each byte one and a half times, and stops when its budget is used up;
// another one is cut off from Core for a day.
const (
	plainNode = iota
	awayNode
	budgetNode
	monthNodes
)

const (
	monthUsers   = 100
	dailyLimit   = 90_000
	weeklyLimit  = 250_000
	budgetBytes  = 6_000_000
	lifeDays     = 9 // of a subscription from its first use
	coreAwayDay  = 10
	agentAwayDay = 20
	summerDay    = 28 // on which the clock is set an hour ahead
)

// What kinds of subscriptions the users have by turns.
const (
	daily  = iota // a limit for each day
	weekly        // a limit for each week
	whole         // a limit for ever
	lived         // some days from the first use
	kinds
)

// month is an operator's month: a Core, three agents, and a stock client with the credentials of all.
type month struct {
	*world
	clock  *clock
	zone   *time.Location
	api    *coreapi.Client
	agents [monthNodes]*Agent
	ports  [monthNodes]int
	relay  *relay // between the agent that is cut off for a day and Core
	client *process
	socks  string
	target *Target
	subs   []*monthSub
	away   bool // Core is: nobody asks it

	renewed, cut int
}

// monthSub is a subscription, and what the test counts for it by itself.
type monthSub struct {
	index, kind  int
	id           int64
	uuid         string
	limit, extra int64
	ends         time.Time // zero for never, or for the first use that has not come
	// sent are the bytes of exchanges that ended well. tried are those of exchanges that did not: Core
	// counts some of them. late are those of sent that Core can't have yet.
	sent, tried, late int64
	// used and usedTried are of the period that runs, in thousandths, with the nodes' multipliers.
	used, usedTried, usedLate int64
	began                     time.Time // of the period
	limited                   bool      // was so
}

var monthNames = [monthNodes]string{"plain", "away", "budget"}

func newMonth(t *testing.T) *month {
	t.Helper()
	progs, clock := withClock(t)
	zone, err := time.LoadLocation("Europe/Berlin")
	must(t, err)
	m := &month{world: &world{t: t, ctx: t.Context(), dir: t.TempDir(), progs: progs}, clock: clock, zone: zone}
	m.target = m.world.target()
	clock.set(m.at(1, 8, 0, 0))
	m.core, err = NewCore(m.ctx, progs, filepath.Join(m.dir, "core"), "--timezone", zone.String())
	must(t, err)
	t.Cleanup(func() {
		m.core.Kill()
		m.showLog("core", m.core.process)
	})
	m.api = coreapi.OverSocket(m.core.dir, filepath.Join(m.core.dir, "admin.sock"))
	m.relay = newRelay(t, m.core.listen)
	for i, name := range monthNames {
		token, err := m.core.AddNode(m.ctx, name)
		must(t, err)
		if i == awayNode {
			join, err := parseToken(token)
			must(t, err)
			join.CoreURL = "https://" + m.relay.addr()
			token = join.Encode()
		}
		p, err := m.core.AddVLESS(m.ctx, name, "--security", "none")
		must(t, err)
		m.ports[i] = p.Port
		m.agents[i], err = NewAgent(m.ctx, progs, filepath.Join(m.dir, name), quickConfig, token)
		must(t, err)
		t.Cleanup(func() {
			m.agents[i].Kill()
			m.showLog(name, m.agents[i].process)
		})
		must(t, m.agents[i].Start(m.ctx))
	}
	m.addUsers()
	m.connect()
	return m
}

// at is a time of the month, on a day of March 2027 in the zone; later ones are days of April.
func (m *month) at(day, hour, minute, second int) time.Time {
	return time.Date(2027, 3, day, hour, minute, second, 0, m.zone)
}

// addUsers adds a group, a plan for each kind of subscriptions, and the users.
func (m *month) addUsers() {
	_, err := m.api.AddGroup(m.ctx, coreapi.NewGroup{Name: "all", GroupReach: coreapi.GroupReach{AddNodes: monthNames[:]}})
	must(m.t, err)
	for kind, terms := range [kinds]coreapi.TermsEdit{
		daily:  {LimitBytes: new(int64(dailyLimit)), Period: new("day")},
		weekly: {LimitBytes: new(int64(weeklyLimit)), Period: new("week")},
		whole:  {Period: new("none")},
		lived:  {Period: new("rolling-month"), Expiry: &coreapi.Expiry{AfterSeconds: lifeDays * 24 * 3600, FromFirstUse: true}},
	} {
		terms.Group = new("all")
		_, err := m.api.AddPlan(m.ctx, coreapi.NewPlan{Name: planOf(kind), TermsEdit: terms})
		must(m.t, err)
	}
	var users coreapi.BulkUsers
	for i := range monthUsers {
		s := &monthSub{index: i, kind: i % kinds, limit: [kinds]int64{dailyLimit, weeklyLimit, int64(20_000 * (i + 1)), 0}[i%kinds]}
		edit := coreapi.SubscriptionEdit{Plan: new(planOf(s.kind))}
		if s.kind == whole {
			edit.LimitBytes = new(s.limit)
		}
		m.subs = append(m.subs, s)
		users.Create = append(users.Create, coreapi.BulkNewUser{NewUser: coreapi.NewUser{Name: fmt.Sprint("user-", i)}, Subscriptions: []coreapi.SubscriptionEdit{edit}})
	}
	m.subs = append(m.subs, &monthSub{index: monthUsers, kind: whole}) // the probe, see morning
	users.Create = append(users.Create, coreapi.BulkNewUser{NewUser: coreapi.NewUser{Name: "probe"}, Subscriptions: []coreapi.SubscriptionEdit{{Plan: new(planOf(whole))}}})
	done, _, err := m.api.Bulk(m.ctx, users)
	must(m.t, err)
	for i, user := range done.Created {
		m.subs[i].id, m.subs[i].uuid = user.Subscriptions[0].ID, user.Subscriptions[0].UUID
	}
	_, _, err = m.api.EditNode(m.ctx, monthNames[budgetNode], coreapi.NodeEdit{
		BudgetBytes: new(int64(budgetBytes)), BudgetDay: new(int64(15)), BudgetAction: new("stop"), Multiplier: new(int64(1500)),
	})
	must(m.t, err)
}

func planOf(kind int) string { return fmt.Sprint("kind-", kind) }

// connect starts a stock Xray that reaches each node with the credentials of each subscription, by the user
// of its SOCKS inbound. One that runs is ended.
func (m *month) connect() {
	if m.client != nil {
		m.client.Kill()
	}
	var accounts, outbounds, rules []any
	for _, s := range m.subs {
		for node, port := range m.ports {
			name := s.account(node)
			accounts = append(accounts, map[string]any{"user": name, "pass": name})
			outbounds = append(outbounds, map[string]any{"tag": name, "protocol": "vless", "settings": vlessSettings(port, Subscription{UUID: s.uuid})})
			rules = append(rules, map[string]any{"type": "field", "user": []string{name}, "outboundTag": name})
		}
	}
	port, err := FreePort()
	must(m.t, err)
	m.n++
	file := filepath.Join(m.dir, fmt.Sprintf("client-%d.json", m.n))
	must(m.t, os.WriteFile(file, mustJSON(m.t, map[string]any{
		"log":       map[string]any{"loglevel": "none"},
		"inbounds":  []any{map[string]any{"listen": "127.0.0.1", "port": port, "protocol": "socks", "settings": map[string]any{"auth": "password", "accounts": accounts}}},
		"outbounds": outbounds, "routing": map[string]any{"rules": rules},
	}), 0o600))
	m.socks = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	m.client, err = start(file+".log", m.progs.Xray, "run", "-c", file)
	must(m.t, err)
	m.t.Cleanup(m.client.Kill)
	must(m.t, Eventually(m.ctx, func() error {
		conn, err := net.Dial("tcp", m.socks)
		if err != nil {
			return err
		}
		return conn.Close()
	}))
}

func (s *monthSub) account(node int) string { return fmt.Sprintf("%d-%d", s.index, node) }

// multiplier is in thousandths.
func multiplier(node int) int64 {
	if node == budgetNode {
		return 1500
	}
	return 1000
}

// serves reports whether a node may let clients in.
func (m *month) serves(node int) bool {
	n, err := m.api.Node(m.ctx, monthNames[node])
	must(m.t, err)
	return n.Serves()
}

// A month of an operator on three real agents and with a stock client, on a clock that the test moves. It
// counts for itself what each subscription has moved, and compares with Core's sums, limits, periods and
// statuses after each day; who may be served is, and who may not is not.
//
// The days are some of the month. With MONTH=whole (make month) they are all.
func TestOperatorsMonthOnAgents(t *testing.T) {
	t.Parallel()
	days := []int{1, 2, 8, coreAwayDay, coreAwayDay + 1, 15, agentAwayDay, agentAwayDay + 1, summerDay, summerDay + 1, 32}
	if os.Getenv("MONTH") == "whole" {
		days = nil
		for day := range 32 {
			days = append(days, day+1)
		}
	}
	m := newMonth(t)
	spent, again := false, false
	for _, day := range days {
		m.clock.set(m.at(day, 10, 0, 0))
		switch day {
		case coreAwayDay + 1:
			must(t, m.core.Start(m.ctx))
			m.away = false
			m.arrive()
		case agentAwayDay + 1:
			m.told(coreapi.EventNodeOffline, func(e coreapi.Event) bool { return e.Node == monthNames[awayNode] })
			m.relay.restore()
			m.arrive()
		}
		by := m.morning()
		switch day {
		case coreAwayDay:
			must(t, m.core.Stop())
			m.away = true
		case agentAwayDay:
			m.relay.cut()
		}
		m.traffic(day, by)
		m.clock.add(61 * time.Second) // the minute's rows are made
		if m.away {
			continue
		}
		m.renew(day, m.agree())
		serves := m.serves(budgetNode)
		spent, again = spent || !serves, again || spent && serves
		if day == summerDay {
			m.summer()
		}
	}
	if !spent || !again {
		t.Errorf("the budget was used up: %t, and the node served again: %t", spent, again)
	}
	m.end()
}

// morning waits until Core and the agents have seen that the clock was set. An agent counts what was moved
// up to its next look, a second later, for the minute before: a row of a probe shows that it has looked.
func (m *month) morning() map[int64]coreapi.Subscription {
	m.t.Helper()
	m.agree()
	for node := range monthNodes {
		if node == awayNode && m.relay.isCut() || !m.serves(node) {
			continue
		}
		v := &visit{sub: m.subs[monthUsers], node: node, bytes: 1000}
		must(m.t, m.exchange(v.sub, v.node, v.bytes))
		m.count(v)
	}
	m.clock.add(61 * time.Second)
	return m.agree()
}

// summer looks at the night after the day on which the clock is set ahead: the day has 23 hours.
func (m *month) summer() {
	next := m.at(summerDay+1, 0, 0, 0)
	if next.Sub(m.at(summerDay, 0, 0, 0)) != 23*time.Hour {
		m.t.Fatal("the day has no 23 hours")
	}
	m.clock.set(next.Add(-20 * time.Second))
	m.agree()
	m.clock.set(next)
	m.agree()
}

// end looks for the events of the month.
func (m *month) end() {
	m.told(coreapi.EventBudgetReached, func(e coreapi.Event) bool { return e.Node == monthNames[budgetNode] })
	var limited, expired int
	for _, s := range m.subs {
		if s.limited {
			limited++
			m.told(coreapi.EventSubscriptionLimited, func(e coreapi.Event) bool { return e.SubscriptionID == s.id })
		}
		if s.kind == lived && !s.ends.IsZero() {
			expired++
			m.told(coreapi.EventSubscriptionExpired, func(e coreapi.Event) bool { return e.SubscriptionID == s.id })
		}
	}
	for i := range monthUsers {
		m.told(coreapi.EventFirstConnected, func(e coreapi.Event) bool { return e.User == fmt.Sprint("user-", i) })
	}
	m.t.Logf("%d subscriptions were limited, %d expired, %d renewals, %d clients were cut close to their limits", limited, expired, m.renewed, m.cut)
	if limited < 25 || expired < 10 || m.renewed < 10 {
		m.t.Error("that is less than a month has")
	}
}

// told waits for an event of the kind.
func (m *month) told(kind coreapi.EventKind, is func(coreapi.Event) bool) {
	m.t.Helper()
	must(m.t, Eventually(m.ctx, func() error {
		page, err := m.api.EventsAfter(m.ctx, 0, 1000, kind)
		if err == nil && !slices.ContainsFunc(page.Events, is) {
			err = fmt.Errorf("%d events %s, and none that is awaited", len(page.Events), kind)
		}
		return err
	}))
}
