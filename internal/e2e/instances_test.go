package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/postgrestest"
	"nodeagent/internal/secret"
)

// instances are several node-cores on one PostgreSQL.
type instances struct {
	t     *testing.T
	ctx   context.Context
	db    *postgrestest.Server
	cores []*Core
}

func newInstances(t *testing.T, n int) *instances {
	t.Helper()
	i := &instances{t: t, ctx: t.Context(), db: postgrestest.Start(t, "log_lock_waits=on", "deadlock_timeout=100ms")}
	progs, url := programs(t), i.db.Database(t)
	for k := range n {
		core, err := NewCore(i.ctx, progs, filepath.Join(t.TempDir(), "core"), "--database", url)
		must(t, err)
		t.Cleanup(func() {
			core.Kill()
			if t.Failed() {
				t.Logf("log of core %d:\n%s", k, core.Log())
			}
		})
		i.cores = append(i.cores, core)
	}
	return i
}

// scriptedNode is a registered node that no agent runs. It has a client for each instance, as
// behind a balancer.
type scriptedNode struct {
	clients  []*coreclient.Client
	protocol int64
}

func (i *instances) node(name string) scriptedNode {
	i.t.Helper()
	text, err := i.cores[0].AddNode(i.ctx, name)
	must(i.t, err)
	token, err := wire.ParseJoinToken(text)
	must(i.t, err)
	log := slog.New(slog.DiscardHandler)
	client := func(core *Core, key secret.Text) *coreclient.Client {
		c, err := coreclient.New(coreclient.Config{CoreURL: "https://" + core.listen, Pin: token.Pin, AuthKey: key}, log)
		must(i.t, err)
		return c
	}
	body, err := json.Marshal(wire.RegisterRequest{Code: token.Code.Reveal(), Name: name, Host: name, IP: "192.0.2.1"})
	must(i.t, err)
	// Each instance knows the code that one of them gave out, and all have one certificate.
	last := i.cores[len(i.cores)-1]
	registered, err := client(last, "").Register(i.ctx, secret.Text(rand.Text()), secret.Text(body))
	must(i.t, err)
	n := scriptedNode{}
	for _, core := range i.cores {
		n.clients = append(n.clients, client(core, registered.AuthKey))
	}
	p, err := i.cores[0].AddVLESS(i.ctx, name, "--security", "none")
	must(i.t, err)
	n.protocol = p.ID
	return n
}

// A change that is made at one instance wakes the heartbeat that another one holds, and a report
// to that one ends the --wait of the command.
func TestInstancesWakeEachOther(t *testing.T) {
	t.Parallel()
	i := newInstances(t, 2)
	node := i.node("node")
	there := node.clients[1]
	shown, err := i.cores[1].Node(i.ctx, "node")
	must(t, err)
	revision := shown.Revision
	ended := make(chan error, 1)
	go func() {
		var heard error
		for range 5 {
			answer, err := there.Heartbeat(i.ctx, wire.HeartbeatRequest{Revision: &revision}, "", rand.Text(), 50*time.Second)
			if heard = err; err != nil {
				break
			}
			if !answer.NeedSync {
				heard = fmt.Errorf("the heartbeat was answered with %+v", answer)
				break
			}
			body, _, _, err := there.Config(i.ctx, "")
			if heard = err; err != nil {
				break
			}
			var config struct{ Revision int64 }
			if heard = json.Unmarshal(body, &config); heard != nil {
				break
			}
			if config.Revision == revision { // it was told of a change that it has
				continue
			}
			revision = config.Revision
			heard = there.Post(i.ctx, wire.PathApplied, rand.Text(), fmt.Appendf(nil, `{"revision":%d}`, revision))
			break
		}
		ended <- heard
	}()
	// The node is heard of before the change: else the command takes it for away.
	must(t, Eventually(i.ctx, func() error {
		n, err := i.cores[0].Node(i.ctx, "node")
		if err == nil && n.LastSeenAt == nil {
			err = fmt.Errorf("node %+v was not heard of", n)
		}
		return err
	}))
	var user any
	must(t, i.cores[0].Do(i.ctx, &user, "user", "add", "alice"))
	code, stdout, stderr, err := i.cores[0].command(i.ctx, "subscription", "add", "--user", "alice", "--wait=60s")
	must(t, err)
	if code != 0 {
		t.Errorf("the command ended with %d: %s%s", code, stdout, stderr)
	}
	must(t, <-ended)
}

// Instances are killed in the middle of batches and edits, and PostgreSQL is restarted and crashes
// meanwhile. What was acknowledged is there, once.
func TestInstancesMayDie(t *testing.T) {
	t.Parallel()
	i := newInstances(t, 2)
	const nodes, batches, edits = 3, 24, 10
	var alice struct{ ID int64 }
	must(t, i.cores[0].Do(i.ctx, &alice, "user", "add", "alice"))
	var sub Subscription
	must(t, i.cores[1].Do(i.ctx, &sub, "subscription", "add", "--user", "alice"))
	var scripted []scriptedNode
	for k := range nodes {
		scripted = append(scripted, i.node(fmt.Sprintf("node-%d", k)))
	}
	var taken atomic.Int64
	progress := make(chan struct{}, nodes*batches+2*edits)
	var load sync.WaitGroup
	for _, node := range scripted {
		load.Go(func() { i.post(node, sub, batches, &taken, progress) })
	}
	for k := range 2 {
		load.Go(func() { i.edit(k, edits, progress) })
	}
	over := make(chan struct{})
	go func() { load.Wait(); close(over) }()
	await := func(n int) {
		for range n {
			select {
			case <-progress:
			case <-over: // it failed
			}
		}
	}
	// Whatever the load is at, this happens to it.
	restart := func(core *Core) { core.Kill(); must(t, core.Start(i.ctx)) }
	await(8)
	restart(i.cores[0])
	await(8)
	i.db.Crash(t)
	i.db.Launch(t)
	await(8)
	restart(i.cores[1])
	await(8)
	i.db.Stop(t)
	i.db.Launch(t)
	<-over

	for k, core := range i.cores {
		must(t, Eventually(i.ctx, func() error { var n any; return core.Do(i.ctx, &n, "node", "list") }))
		var subs []Subscription
		must(t, core.Do(i.ctx, &subs, "subscription", "list"))
		found := map[int64]int{}
		for _, s := range subs {
			found[s.UserID]++
			if s.ID == sub.ID && s.BytesUp != taken.Load() {
				t.Errorf("core %d has counted %d bytes, and %d were acknowledged", k, s.BytesUp, taken.Load())
			}
		}
		var users []struct {
			ID   int64
			Name string
		}
		must(t, core.Do(i.ctx, &users, "user", "list"))
		if len(users) != 1+2*edits {
			t.Errorf("core %d has %d users, want %d", k, len(users), 1+2*edits)
		}
		for _, u := range users {
			if found[u.ID] < 1 {
				t.Errorf("user %s has lost the subscription", u.Name)
			}
		}
		sums, err := core.Usage(i.ctx)
		must(t, err)
		total := int64(0)
		for _, sum := range sums {
			total += sum.Up
		}
		if total != taken.Load() {
			t.Errorf("core %d has rows of %d bytes, and %d were acknowledged", k, total, taken.Load())
		}
	}
	i.lockWaits()
	if out, stderr, err := output(i.ctx, i.cores[0].path, "check", "--database", i.cores[0].more[1]); err != nil {
		t.Errorf("check: %v: %s%s", err, out, stderr)
	}
}

// lockWaits tells how many locks were waited for over 100 ms, by what PostgreSQL has logged. No two
// transactions may have waited for each other. How long one waits is a matter of the machine's load too.
func (i *instances) lockWaits() {
	log := i.db.Log()
	if n := strings.Count(log, "deadlock detected"); n > 0 {
		i.t.Errorf("%d transactions have waited for each other:\n%s", n, log)
	}
	i.t.Logf("%d locks were waited for over 100 ms", strings.Count(log, "still waiting for"))
}

// post sends batches as a node does: each again and again with one key, to any of the
// instances, until it is acknowledged.
func (i *instances) post(node scriptedNode, sub Subscription, batches int, taken *atomic.Int64, progress chan<- struct{}) {
	begin := time.Now().UTC().Truncate(time.Minute)
	for n := range batches {
		key, bytes := rand.Text(), int64(0)
		var entries []wire.UsageEntry
		for k := range int64(20) {
			e := wire.UsageEntry{UserID: sub.UserID, SubscriptionID: &sub.ID, NodeProtocolID: node.protocol, BytesUp: 1 + k*int64(n), RecordedAt: begin.Add(-time.Duration(k) * time.Minute)}
			bytes += e.BytesUp
			entries = append(entries, e)
		}
		body, err := json.Marshal(wire.UsageRequest{Entries: entries})
		if err != nil {
			i.t.Error(err)
			return
		}
		if err := Within(i.ctx, 4*Patience, func() error {
			n++ // another instance next time
			return node.clients[n%len(node.clients)].Post(i.ctx, wire.PathUsage, key, body)
		}); err != nil {
			i.t.Error(err)
			return
		}
		taken.Add(bytes)
		progress <- struct{}{}
	}
}

// edit adds users with subscriptions as a person does who tries again where a command fails. A
// command whose answer was lost may have done its work: the user exists already then, and a
// subscription may be there twice, which list tells.
func (i *instances) edit(who, edits int, progress chan<- struct{}) {
	for n := range edits {
		name := fmt.Sprintf("user-%d-%d", who, n)
		var any any
		err := Within(i.ctx, 4*Patience, func() error {
			n++
			core := i.cores[n%len(i.cores)]
			err := core.Do(i.ctx, &any, "user", "add", name)
			if err != nil && !strings.Contains(err.Error(), "exists already") {
				return err
			}
			return core.Do(i.ctx, &any, "subscription", "add", "--user", name)
		})
		if err != nil {
			i.t.Error(err)
			return
		}
		progress <- struct{}{}
	}
}
