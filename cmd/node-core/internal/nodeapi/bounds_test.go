package nodeapi

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire"
)

// now is the minute of a row.
func now() string { return time.Now().UTC().Truncate(time.Minute).Format(time.RFC3339) }

// A node's key reaches as far as the node: rows that name an inbound of another node, an id
// that nobody was given, or somebody else's subscription add to no counter. The rows beside
// them count, and so do rows of what was removed.
func TestRowsOfOthersCountNothing(t *testing.T) {
	c := newCore(t)
	ctx := t.Context()
	other, _, err := c.store.AddNode(ctx, "other", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	add := func(node int64) corestore.Protocol {
		p, err := c.store.AddProtocol(ctx, corestore.Protocol{NodeID: node, Protocol: "vless", Port: 1, Config: []byte(`{}`)})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	own, foreign, removed := add(c.node), add(other.ID), add(c.node)
	if _, err := c.store.RemoveProtocol(ctx, removed.ID); err != nil {
		t.Fatal(err)
	}
	alice := c.subscription("alice")
	bob := c.subscription("bob")
	row := func(user, subscription, protocol int64) string {
		return fmt.Sprintf(`{"userId":%d,"subscriptionId":%d,"nodeProtocolId":%d,"bytesUp":1,"bytesDown":1,"recordedAt":%q}`, user, subscription, protocol, now())
	}
	rows := []string{
		row(alice.UserID, alice.ID, own.ID), row(alice.UserID, alice.ID, removed.ID), // counted
		row(alice.UserID, alice.ID, foreign.ID), row(alice.UserID, alice.ID, 1<<60), row(alice.UserID, 1<<60, own.ID), // left out
		row(alice.UserID, bob.ID, own.ID), // stored, and nobody's counter
	}
	c.want(http.StatusOK, c.post(wire.PathUsage, "k", `{"entries":[`+strings.Join(rows, ",")+`]}`), nil)
	if up := c.counted(alice.ID); up != 2 {
		t.Errorf("alice has %d bytes, want 2", up)
	}
	if up := c.counted(bob.ID); up != 0 {
		t.Errorf("bob has %d bytes, want 0", up)
	}
	c.check()
}

// Sums stay at their greatest value. Rows beside them go on counting.
func TestSumsSaturate(t *testing.T) {
	c := newCore(t)
	alice, bob := c.subscription("alice"), c.subscription("bob")
	huge := func() string {
		return fmt.Sprintf(`{"userId":%d,"subscriptionId":%d,"nodeProtocolId":1,"bytesUp":%d,"bytesDown":0,"recordedAt":%q}`, alice.UserID, alice.ID, int64(maxBytes), now())
	}
	var rows []string
	for range maxRows - 1 {
		rows = append(rows, huge())
	}
	rows = append(rows, fmt.Sprintf(`{"userId":%d,"subscriptionId":%d,"nodeProtocolId":1,"bytesUp":5,"bytesDown":0,"recordedAt":%q}`, bob.UserID, bob.ID, now()))
	for i := range 3 {
		c.want(http.StatusOK, c.post(wire.PathUsage, fmt.Sprint(i), `{"entries":[`+strings.Join(rows, ",")+`]}`), nil)
	}
	if up := c.counted(alice.ID); up != math.MaxInt64 {
		t.Errorf("alice has %d bytes, want %d", up, int64(math.MaxInt64))
	}
	if up := c.counted(bob.ID); up != 15 {
		t.Errorf("bob has %d bytes, want 15", up)
	}
	item := fmt.Sprintf(`{"tag":"direct","bytesUp":%d,"bytesDown":1}`, int64(maxBytes))
	for i := range 3 {
		c.want(http.StatusOK, c.post(wire.PathOutboundUsage, fmt.Sprint(i), `{"items":[`+strings.Repeat(item+",", 5000)+item+`]}`), nil)
	}
	if err := c.store.Upkeep(t.Context(), time.Now().AddDate(1, 0, 0)); err != nil {
		t.Error(err)
	}
	c.check()
}

func TestBatchesAreBounded(t *testing.T) {
	c := newCore(t)
	row := `{"userId":1,"nodeProtocolId":1,"bytesUp":1,"bytesDown":1,"recordedAt":"` + now() + `"}`
	c.want(http.StatusRequestEntityTooLarge, c.post(wire.PathUsage, "", `{"entries":[`+strings.Repeat(row+",", maxRows)+row+`]}`), nil)
	var items []string
	for i := range 5000 {
		items = append(items, fmt.Sprintf(`{"tag":"t%d","bytesUp":1,"bytesDown":1}`, i))
	}
	for range 2 { // what is known goes on counting
		c.want(http.StatusOK, c.post(wire.PathOutboundUsage, "", `{"items":[`+strings.Join(items, ",")+`,{"tag":"direct","bytesUp":7,"bytesDown":0}]}`), nil)
	}
	if all, err := c.store.Outbounds(t.Context(), c.node); err != nil || len(all) != 1000 || all[0].Tag != "direct" || all[0].TrafficBytesUp != 14 {
		t.Errorf("%d outbounds, %v; the first is %+v", len(all), err, all[0])
	}
	for i := range 1010 {
		c.want(http.StatusOK, c.post(wire.PathError, "", fmt.Sprintf(`{"message":"error %d"}`, i)), nil)
	}
	all, err := c.store.NodeErrors(t.Context(), c.node, 5000)
	if err != nil || len(all) != 1000 || all[len(all)-1].Message != "error 1009" {
		t.Errorf("%d errors are kept, %v", len(all), err)
	}
	c.want(http.StatusBadRequest, c.post(wire.PathHeartbeat, "", `{"ip":"fe80::1%\u001b[31m"}`), nil)
}

// While a batch of a node waits for the store, another node's batch is not behind the node's
// next ones.
func TestNodesLockOnlyThemselves(t *testing.T) {
	var locks nodeLocks
	unlock, err := locks.lock(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 10 {
		waiting.Go(func() {
			if _, err := locks.lock(ended, 1); err == nil {
				t.Error("two requests of one node have its lock")
			}
		})
	}
	other, err := locks.lock(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	other()
	end()
	waiting.Wait()
	unlock()
	if len(locks.held) != 0 {
		t.Errorf("%d locks are left", len(locks.held))
	}
}

// A node with many batches waits for itself: another node's batch comes after one of them.
func TestABusyNodeDelaysNobody(t *testing.T) {
	c := newCore(t)
	other, code, err := c.store.AddNode(t.Context(), "other", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := c.store.Register(t.Context(), wire.RegisterRequest{Code: code}, "")
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := c.api.storing.lock(t.Context(), c.node) // as a batch of the node that is being stored
	if err != nil {
		t.Fatal(err)
	}
	row := `{"entries":[{"userId":1,"nodeProtocolId":1,"bytesUp":1,"bytesDown":1,"recordedAt":"` + now() + `"}]}`
	stored := make(chan answer)
	go func() { stored <- c.post(wire.PathUsage, "a", row) }()
	c.want(http.StatusOK, c.send(http.MethodPost, wire.PathUsage, map[string]string{"x-node-auth-key": key}, row), nil)
	rows, err := c.store.Usage(t.Context(), 10)
	if err != nil || len(rows) != 1 || rows[0].NodeID != other.ID {
		t.Errorf("stored are %+v, %v, want the other node's row alone", rows, err)
	}
	unlock()
	c.want(http.StatusOK, <-stored, nil)
}

// A node that asks for its document and does not read it has few answers open, each for a
// bounded time.
func TestUnreadDocumentsAreBounded(t *testing.T) {
	c := newCore(t)
	for range maxAnswers {
		if _, err := c.api.answering.enter(c.node, maxAnswers); err != nil {
			t.Fatal(err)
		}
	}
	ask := map[string]string{"x-node-auth-key": c.key}
	c.want(http.StatusTooManyRequests, c.send(http.MethodGet, wire.PathConfig, ask, ""), nil)
	clear(c.api.answering.open)
	large := strings.Repeat(" ", 24<<20) // more than the sockets take
	if _, err := c.store.AddProtocol(t.Context(), corestore.Protocol{NodeID: c.node, Protocol: "vless", Port: 1, Config: []byte(`{"x":"` + large + `"}`)}); err != nil {
		t.Fatal(err)
	}
	c.api.answerTime = 200 * time.Millisecond
	conn, err := net.Dial("tcp", c.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: core\r\nX-Node-Auth-Key: %s\r\n\r\n", wire.PathConfig, c.key); err != nil {
		t.Fatal(err)
	}
	open := func() int {
		c.api.answering.mu.Lock()
		defer c.api.answering.mu.Unlock()
		return c.api.answering.open[c.node]
	}
	begun := false
	for deadline := time.Now().Add(time.Minute); !begun || open() > 0; time.Sleep(time.Millisecond) {
		begun = begun || open() > 0
		if time.Now().After(deadline) {
			t.Fatalf("begun: %t; %d answers are open", begun, open())
		}
	}
}

func (c *core) subscription(user string) corestore.Subscription {
	c.t.Helper()
	u, err := c.store.AddUser(c.t.Context(), user)
	if err != nil {
		c.t.Fatal(err)
	}
	sub, _, err := c.store.AddSubscription(c.t.Context(), u.ID)
	if err != nil {
		c.t.Fatal(err)
	}
	return sub
}

// counted returns the bytes up of a subscription.
func (c *core) counted(id int64) int64 {
	c.t.Helper()
	all, err := c.store.Subscriptions(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, s := range all {
		if s.ID == id {
			return s.BytesUp
		}
	}
	c.t.Fatalf("no subscription %d", id)
	return 0
}
