package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/store"
)

// TestUpgrade starts the current programs on files that earlier versions made. The
// daemon must serve the configuration in node.db before Core answers, must replace
// nothing when Core sends the same configuration, and must deliver every waiting batch
// once. Core must find everything in core.db that was in it.
func TestUpgrade(t *testing.T) {
	if !ownUpgradeAddresses(t) {
		return
	}
	fixtures, err := filepath.Glob("testdata/upgrade/*/*/" + upgradeExpectFile)
	must(t, err)
	if len(fixtures) == 0 {
		t.Fatal("testdata/upgrade has no fixtures")
	}
	for _, file := range fixtures {
		from := filepath.Dir(file)
		t.Run(strings.TrimPrefix(from, "testdata/upgrade/"), func(t *testing.T) { newUpgraded(t, from).check() })
	}
}

// upgraded is a fixture that the current programs run on.
type upgraded struct {
	*upgradeRun
	upgradeFixture
	from     string
	document []byte // as Core sent it to the version of the fixture
	began    time.Time

	scripted *scriptedCore // nil where there is a node-core
	front    *upgradeFront
	conns    []net.Conn // one for each way
	worker   int        // its process id
}

func newUpgraded(t *testing.T, from string) *upgraded {
	t.Helper()
	u := &upgraded{upgradeRun: newUpgradeRun(t), from: from, began: time.Now()}
	u.upgradeFixture = unpack(t, from, u.dir)
	var err error
	u.document, err = os.ReadFile(filepath.Join(from, "document.json"))
	must(t, err)
	u.agent = &Agent{path: u.progs.Agent, dir: filepath.Join(u.dir, "agent")}
	must(t, os.WriteFile(u.agent.file("config.toml"), []byte(openLoopback(quickConfig)), 0o600))
	return u
}

func (u *upgraded) check() {
	u.checkState()
	u.checkTexts()
	if len(u.Commands) > 0 {
		u.startNodeCore()
	} else {
		u.scripted, u.front = newScriptedFront(u.t, slices.Clone(u.Taken))
		u.scripted.serveText(u.Revision, u.document)
	}
	u.startAgent()
	u.checkWithoutCore()
	u.letCoreAnswer()
	u.checkDelivered()
	u.checkNothingReplaced("Core has the same revision")
	if u.scripted == nil {
		u.addSubscriber()
	} else {
		u.rewriteDocument()
	}
	u.checkNothingReplaced("another revision has the same inbounds")
	for i, way := range u.Ways {
		u.exchange(u.conns[i], way, 1, 1)
		must(u.t, u.conns[i].Close())
	}
	u.stopAgent()
	u.checkSums()
}

// previousRevision returns the revision of the configuration before the current one, 0 for
// none.
func previousRevision(h store.History) int64 {
	if h.Previous == nil {
		return 0
	}
	return h.Previous.Revision
}

// checkState reads a copy of node.db with the current store package.
func (u *upgraded) checkState() {
	u.t.Helper()
	db := stateCopy(u.t, u.agent)
	id, err := db.Identity()
	must(u.t, err)
	if id.NodeID != u.NodeID || !strings.HasSuffix(id.CoreURL, loopback(upgradeCorePort)) || id.AuthKey == "" {
		u.t.Errorf("the node is %s at %s, want node %s at port %d, with a key", id.NodeID, id.CoreURL, u.NodeID, upgradeCorePort)
	}
	history, err := db.History()
	must(u.t, err)
	body, err := history.Current.Body.Unpack()
	must(u.t, err)
	if revision := history.Current.Revision; revision != u.Revision || !bytes.Equal(body, u.document) {
		u.t.Errorf("the stored configuration has revision %d and the text\n%s\nwant revision %d and\n%s", revision, body, u.Revision, u.document)
	}
	if previous := previousRevision(history); previous != u.Previous {
		u.t.Errorf("the configuration before has revision %d, want %d", previous, u.Previous)
	}
	online, err := db.Online()
	must(u.t, err)
	if len(online) != u.Online {
		u.t.Errorf("%d visitors are online, want %d", len(online), u.Online)
	}
	u.checkMerge()
	waiting := takeWaiting(u.t, db)
	if len(waiting) != len(u.Waiting) {
		u.t.Fatalf("%d batches wait, want %d", len(waiting), len(u.Waiting))
	}
	for i, want := range u.Waiting {
		if have := waiting[i]; !have.same(want) || !sameJSON(u.t, have.Body, want.Body) {
			u.t.Errorf("batch %d waits as %s %s %s, want %s %s %s", i, have.Path, have.Key, have.Body, want.Path, want.Key, want.Body)
		}
	}
}

// checkMerge merges the waiting usage of a copy, as the daemon does with old batches. A
// batch that Core may have taken must keep its key, or Core would count it twice.
func (u *upgraded) checkMerge() {
	u.t.Helper()
	left := mergedKeys(u.t, u.agent)
	for _, key := range u.Tried {
		if !slices.Contains(left, key) {
			u.t.Errorf("batch %s is merged with others, though Core may have taken it", key)
		}
	}
}

// checkTexts compares the worker's texts with the recorded ones. UPGRADE_TEXTS=1 records
// them anew.
func (u *upgraded) checkTexts() {
	u.t.Helper()
	have := workerTexts(u.t, u.document)
	file := filepath.Join(u.from, "worker.json")
	if os.Getenv("UPGRADE_TEXTS") != "" {
		writeIndented(u.t, file, have)
	}
	raw, err := os.ReadFile(file)
	must(u.t, err)
	want := decoded[map[string]string](u.t, raw)
	names := maps.Clone(have)
	maps.Copy(names, want)
	for name := range names {
		if have[name] != want[name] {
			u.t.Errorf("%s: the worker is told\n%s\nand was told\n%s\n(where that is meant, UPGRADE_TEXTS=1 records it)", name, have[name], want[name])
		}
	}
}

// startNodeCore starts the current node-core on core.db and compares what its commands
// print. The node cannot reach it yet.
func (u *upgraded) startNodeCore() {
	u.t.Helper()
	makeYoung(u.t, filepath.Join(u.dir, "core", "core.db"), time.Since(u.MadeAt).Truncate(time.Hour))
	u.runCore()
	for words, want := range u.Commands {
		var have any
		must(u.t, u.core.Do(u.ctx, &have, strings.Fields(words)...))
		if missing := lacks(withoutTimes(have), decoded[any](u.t, want)); missing != "" {
			u.t.Errorf("node-core %s: %s; it printed %s", words, missing, want)
		}
	}
	fresh, err := NewCore(u.ctx, u.progs, filepath.Join(u.dir, "fresh"))
	must(u.t, err)
	must(u.t, fresh.Stop())
	compareLists(u.t, "tables", schemaOf(u.t, filepath.Join(u.core.dir, "core.db")), schemaOf(u.t, filepath.Join(fresh.dir, "core.db")))
	var added struct{ JoinToken string }
	must(u.t, u.core.Do(u.ctx, &added, "node", "code", upgradeNode))
	token, err := parseToken(added.JoinToken)
	must(u.t, err)
	id, err := stateCopy(u.t, u.agent).Identity()
	must(u.t, err)
	if token.Pin != id.Pin {
		u.t.Errorf("Core's certificate has the pin %s, the node knows %s", token.Pin, id.Pin)
	}
}

// checkWithoutCore checks what the daemon does while Core does not answer.
func (u *upgraded) checkWithoutCore() {
	u.t.Helper()
	must(u.t, Eventually(u.ctx, func() error {
		have, err := u.inbounds()
		if err == nil && !reflect.DeepEqual(have, u.Inbounds) {
			err = fmt.Errorf("the inbounds are %+v, want %+v", have, u.Inbounds)
		}
		return err
	}))
	status, err := u.agent.Status(u.ctx)
	must(u.t, err)
	if status.NodeID != u.NodeID || status.Revision.Running == nil || *status.Revision.Running != u.Revision {
		u.t.Errorf("status %+v, want node %s with revision %d", status, u.NodeID, u.Revision)
	}
	u.worker = status.Engines.Xray.PID
	if text, err := u.agent.StatusText(u.ctx); err != nil || !strings.Contains(text, u.Inbounds[0].Tag) {
		u.t.Errorf("status names no %s: %v\n%s", u.Inbounds[0].Tag, err, text)
	}
	outbox, err := u.outbox()
	must(u.t, err)
	if outbox.batches() < len(u.Waiting) {
		u.t.Errorf("%d batches wait, want %d at the least", outbox.batches(), len(u.Waiting))
	}
	compareLists(u.t, "set aside", asideTexts(u.t, u.aside()), asideTexts(u.t, u.Aside))
	for i, way := range u.Ways {
		conn := u.dialWay(way)
		u.exchange(conn, way, 20_000+int64(i), 30_000+int64(i))
		u.conns = append(u.conns, conn)
		if !way.OneAtATime {
			continue
		}
		second, err := u.clients[way.Name].Dial(way.Dial)
		must(u.t, err)
		must(u.t, second.SetDeadline(time.Now().Add(5*time.Second)))
		if err := Exchange(second, 1, 1); err == nil {
			u.t.Errorf("%s: a second connection was let in, where one is the limit", way.Name)
		}
		must(u.t, second.Close())
	}
}

func (u *upgraded) letCoreAnswer() {
	u.t.Helper()
	if u.scripted != nil {
		u.front.serve(u.t)
	} else {
		front, cert := frontOf(u.t, u.core)
		u.front = front
		u.front.serve(u.t, cert)
	}
	must(u.t, Eventually(u.ctx, func() error {
		outbox, err := u.outbox()
		if err == nil && outbox.batches() > 0 {
			err = fmt.Errorf("batches wait: %v", outbox.Waiting.Batches)
		}
		return err
	}))
	if u.scripted != nil {
		must(u.t, u.scripted.applied(u.ctx))
	}
}

// checkDelivered checks that every waiting batch came once, with its recorded key and
// body.
func (u *upgraded) checkDelivered() {
	u.t.Helper()
	posts := u.front.taken()[len(u.Taken):]
	for _, want := range u.Waiting {
		times := 0
		for _, have := range posts {
			if have.same(want) {
				times++
				if !sameJSON(u.t, have.Body, want.Body) {
					u.t.Errorf("batch %s of %s came as %s, want %s", want.Key, want.Path, have.Body, want.Body)
				}
			}
		}
		if times != 1 {
			u.t.Errorf("batch %s of %s came %d times", want.Key, want.Path, times)
		}
	}
}

// checkNothingReplaced checks that the worker is the same process and that every open
// connection still moves bytes.
func (u *upgraded) checkNothingReplaced(when string) {
	u.t.Helper()
	status, err := u.agent.Status(u.ctx)
	must(u.t, err)
	if x := status.Engines.Xray; x.PID != u.worker || x.Restarts != 0 {
		u.t.Errorf("%s: the worker has the process id %d and %d restarts, want %d and 0", when, x.PID, x.Restarts, u.worker)
	}
	for i, way := range u.Ways {
		u.exchange(u.conns[i], way, 100, 200)
	}
}

// addSubscriber adds a user, which makes a new revision, and connects as that user.
func (u *upgraded) addSubscriber() {
	u.t.Helper()
	sub := u.subscriber("newcomer")
	must(u.t, u.core.Synced(u.ctx, upgradeNode))
	outbound, err := VLESS(sub.Links[0])
	must(u.t, err)
	first := u.Ways[0]
	u.move([]upgradeWay{{
		Name: "newcomer", Account: upgradeAccount{sub.UserID, sub.ID, first.Account.Protocol},
		Outbound: first.Outbound, Dial: first.Dial, ClientConfig: outbound,
	}}, 1000, 2000)
	_, err = NewAgent(u.ctx, u.progs, filepath.Join(u.dir, "spare"), quickConfig, u.Spare)
	must(u.t, err)
}

// rewriteDocument serves the document as the next revision.
func (u *upgraded) rewriteDocument() {
	u.t.Helper()
	u.scripted.serveText(u.Revision+1, rewritten(u.t, u.document, u.Revision+1))
	must(u.t, u.scripted.applied(u.ctx))
}

// checkSums compares Core's sums after the end of the daemon with the recorded sums plus
// the traffic of this test.
func (u *upgraded) checkSums() {
	u.t.Helper()
	var have upgradeSums
	if u.scripted != nil {
		have = sumPosts(u.t, u.front.taken())
	} else {
		have = coreSums(u.t, u.core)
		u.checkSubscriptions(have)
	}
	compareSums(u.t, "usage", have.usage, addTo(usageMap(u.Usage), u.usage))
	for tag := range have.outbounds {
		if _, expected := u.Outbounds[tag]; !expected && u.scripted != nil {
			delete(have.outbounds, tag) // the observatory's own requests
		}
	}
	compareSums(u.t, "outbound usage", have.outbounds, addTo(u.Outbounds, u.outbounds))
	compareLists(u.t, "session events", eventTexts(have.events, u.began), u.Events)
}

// checkSubscriptions compares the subscriptions' counters with the usage rows.
func (u *upgraded) checkSubscriptions(sums upgradeSums) {
	u.t.Helper()
	want := map[int64]Traffic{}
	for account, traffic := range sums.usage {
		want[account.Subscription] = want[account.Subscription].plus(traffic)
	}
	var subs []Subscription
	must(u.t, u.core.Do(u.ctx, &subs, "subscription", "list"))
	for _, s := range subs {
		if have := (Traffic{s.BytesUp, s.BytesDown}); have != want[s.ID] {
			u.t.Errorf("subscription %d has %+v, its rows have %+v", s.ID, have, want[s.ID])
		}
	}
}
