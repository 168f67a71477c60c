package e2e

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/postgrestest"
)

// failover is a node-core on a PostgreSQL that has a standby. Its URL names both.
type failover struct {
	*instances
	primary, standby *postgrestest.Server
}

func newFailover(t *testing.T, settings ...string) *failover {
	t.Helper()
	primary := postgrestest.Start(t, settings...)
	f := &failover{&instances{t: t, ctx: t.Context(), db: primary}, primary, primary.Standby(t)}
	u, err := url.Parse(primary.Database(t))
	must(t, err)
	u.RawQuery = url.Values{"host": {primary.Socket() + "," + f.standby.Socket()}, "target_session_attrs": {"read-write"}}.Encode()
	core, err := NewCore(f.ctx, programs(t), filepath.Join(t.TempDir(), "core"), "--database", u.String())
	must(t, err)
	t.Cleanup(func() {
		core.Kill()
		if t.Failed() {
			t.Logf("log of the core:\n%s\nof the standby:\n%s", core.Log(), f.standby.Log())
		}
	})
	f.cores = append(f.cores, core)
	return f
}

// alice is a user with a subscription.
func (f *failover) alice() (sub Subscription) {
	f.t.Helper()
	var alice any
	must(f.t, f.cores[0].Do(f.ctx, &alice, "user", "add", "alice"))
	must(f.t, f.cores[0].Do(f.ctx, &sub, "subscription", "add", "--user", "alice"))
	return sub
}

// over ends the primary without a checkpoint and promotes the standby. Between the two, commands fail.
func (f *failover) over() {
	f.t.Helper()
	f.primary.Crash(f.t)
	code, stdout, stderr, err := f.cores[0].command(f.ctx, "user", "add", "meanwhile")
	must(f.t, err)
	if code == 0 {
		f.t.Errorf("without a primary, a command printed %s", stdout)
	}
	f.t.Logf("without a primary, a command ends with %d: %s", code, stderr)
	f.standby.Promote(f.t)
	var any any
	if err := f.cores[0].Do(f.ctx, &any, "user", "add", "first"); err != nil {
		f.t.Errorf("the first command after the promotion: %v", err)
	}
}

func (f *failover) names() (names []string) {
	f.t.Helper()
	var users []struct{ Name string }
	must(f.t, Eventually(f.ctx, func() error { return f.cores[0].Do(f.ctx, &users, "user", "list") }))
	for _, u := range users {
		names = append(names, u.Name)
	}
	return names
}

// A primary is killed while nodes post and somebody edits. With a synchronous standby, nothing that was
// acknowledged is lost or counted twice, and node-core goes on with the standby by itself.
func TestSynchronousFailover(t *testing.T) {
	t.Parallel()
	f := newFailover(t, "synchronous_standby_names=*")
	sub := f.alice()
	nodes := []scriptedNode{f.node("node-0"), f.node("node-1")}
	const batches, edits = 12, 4
	var taken atomic.Int64
	progress := make(chan struct{}, len(nodes)*batches+edits)
	var load sync.WaitGroup
	for _, node := range nodes {
		load.Go(func() { f.post(node, sub, batches, &taken, progress) })
	}
	load.Go(func() { f.edit(0, edits, progress) })
	for range 6 {
		<-progress
	}
	f.over()
	load.Wait()
	want := []string{"alice", "first"}
	for n := range edits {
		want = append(want, fmt.Sprint("user-0-", n))
	}
	names := f.names()
	// The command without a primary has failed, and may have failed after its commit all the same.
	names = slices.DeleteFunc(names, func(name string) bool { return name == "meanwhile" })
	slices.Sort(names) // those of the load come at any time
	if !slices.Equal(names, want) {
		t.Errorf("the users are %q, want %q", names, want)
	}
	must(t, f.cores[0].Do(f.ctx, &sub, "subscription", "show", fmt.Sprint(sub.ID)))
	sums, err := f.cores[0].Usage(f.ctx)
	must(t, err)
	total := int64(0)
	for _, sum := range sums {
		total += sum.Up
	}
	if sub.BytesUp != taken.Load() || total != taken.Load() {
		t.Errorf("%d bytes were acknowledged, the subscription has %d and the rows %d", taken.Load(), sub.BytesUp, total)
	}
	if out, stderr, err := output(f.ctx, f.cores[0].path, "check", "--database", f.cores[0].more[1]); err != nil {
		t.Errorf("check: %v: %s%s", err, out, stderr)
	}
}

// A standby that lacks the last changes has forgotten them. Ids are not given out twice, and a node that runs
// a forgotten revision gets the configuration of the database.
func TestFailoverThatLosesTheLastChanges(t *testing.T) {
	t.Parallel()
	f := newFailover(t)
	sub := f.alice()
	node := f.node("node")
	f.standby.CatchUp(t, f.primary)
	f.standby.StopStreaming(t)
	var lost struct{ ID int64 }
	must(t, f.cores[0].Do(f.ctx, &lost, "user", "add", "lost"))
	var gone Subscription
	must(t, f.cores[0].Do(f.ctx, &gone, "subscription", "add", "--user", "lost"))
	before := f.config(node)
	if !strings.Contains(before.text, gone.UUID) {
		t.Fatalf("the node's configuration lacks the subscription that will be lost: %s", before.text)
	}
	f.over()
	if names := f.names(); slices.Contains(names, "lost") || !slices.Contains(names, "alice") {
		t.Errorf("the users are %q, want alice and not lost", names)
	}
	var after struct{ ID int64 }
	must(t, Eventually(f.ctx, func() error { return f.cores[0].Do(f.ctx, &after, "user", "add", "after") }))
	if after.ID <= lost.ID {
		t.Errorf("a user has the id %d, and one that was forgotten had %d", after.ID, lost.ID)
	}
	must(t, Eventually(f.ctx, func() error {
		answer, err := node.clients[0].Heartbeat(f.ctx, wire.HeartbeatRequest{Revision: &before.Revision}, "", rand.Text(), 0)
		if err == nil && !answer.NeedSync {
			err = errors.New("the node is to keep what the database has forgotten")
		}
		return err
	}))
	now := f.config(node)
	if now.epoch <= before.epoch || strings.Contains(now.text, gone.UUID) || !strings.Contains(now.text, sub.UUID) {
		t.Errorf("the node gets epoch %d after %d, and %s", now.epoch, before.epoch, now.text)
	}
}

type fetched struct {
	Revision int64
	text     string
	epoch    int64
}

// config fetches the configuration of a node.
func (f *failover) config(node scriptedNode) (c fetched) {
	f.t.Helper()
	must(f.t, Eventually(f.ctx, func() error {
		body, _, _, err := node.clients[0].Config(f.ctx, "")
		if err != nil {
			return err
		}
		said, _ := node.clients[0].Said()
		c.text, c.epoch = string(body), said.Epoch
		return json.Unmarshal(body, &c)
	}))
	return c
}
