package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

const (
	// A minute's rows go to the outbox when the minute is over.
	minutePatience = 100 * time.Second
	// collected is longer than two reads of the counters (quickConfig).
	collected = 2500 * time.Millisecond
	// proved is longer than a configuration has to run before the store keeps it as the
	// previous one (agent.crashWindow).
	proved = 65 * time.Second
)

// TestRecordUpgrade makes fixtures with the node-agent and the node-core in the folder that
// the environment variable UPGRADE_PROGRAMS names. It writes them to
// testdata/upgrade/VERSION; the environment variable UPGRADE_RECORD is the version. It
// takes some six minutes, because the traffic has to fall into several minutes of the
// clock.
func TestRecordUpgrade(t *testing.T) {
	version := os.Getenv("UPGRADE_RECORD")
	if version == "" {
		t.Skip("NOT RUN: UPGRADE_RECORD=VERSION UPGRADE_PROGRAMS=FOLDER makes fixtures in testdata/upgrade/VERSION")
	}
	if !ownUpgradeAddresses(t) {
		return
	}
	to := filepath.Join("testdata", "upgrade", version)
	t.Run("node-core", func(t *testing.T) { recordNodeCore(t, filepath.Join(to, "node-core")) })
	t.Run("foreign", func(t *testing.T) { recordForeign(t, filepath.Join(to, "foreign")) })
}

// recording makes a fixture.
type recording struct {
	*upgradeRun
	upgradeFixture
	front *upgradeFront
}

func newRecording(t *testing.T) *recording {
	t.Helper()
	r := &recording{upgradeRun: newUpgradeRun(t), upgradeFixture: upgradeFixture{Version: os.Getenv("UPGRADE_RECORD")}}
	dir := os.Getenv("UPGRADE_PROGRAMS")
	r.progs.Agent, r.progs.Core = filepath.Join(dir, "node-agent"), filepath.Join(dir, "node-core")
	return r
}

func (r *recording) until(what string, ask func() error) {
	r.t.Helper()
	if err := Within(r.ctx, minutePatience, ask); err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
}

// untilWaiting waits until so many batches of usage wait.
func (r *recording) untilWaiting(batches int) {
	r.t.Helper()
	r.until("usage waits", func() error {
		outbox, err := r.outbox()
		if err == nil && outbox.Waiting.Batches["usage"] < batches {
			err = fmt.Errorf("waiting are %v", outbox.Waiting.Batches)
		}
		return err
	})
}

// recordForeign makes the files of a node under a scripted Core. The daemon is stopped in
// order.
func recordForeign(t *testing.T, to string) {
	r := newRecording(t)
	keys := newForeignKeys(t)
	r.Ways = keys.ways()
	var scripted *scriptedCore
	scripted, r.front = newScriptedFront(t, nil)
	refused := 0
	r.front.refuse = func(p upgradePost) bool { // the first batch of session events
		if p.Path == wire.PathSessionEvents {
			refused++
		}
		return p.Path == wire.PathSessionEvents && refused == 1
	}
	r.front.serve(t)
	var err error
	r.agent, err = NewAgent(r.ctx, r.progs, filepath.Join(r.dir, "agent"), quickConfig, "--core", "http://"+loopback(upgradeCorePort), "--code", "any")
	must(t, err)
	scripted.serveText(40, bytes.Replace(keys.document(t, "40"), []byte(`"tag":"spare"`), []byte(`"tag":"spare-1"`), 1))
	r.startAgent()
	must(t, scripted.applied(r.ctx))
	scripted.serveText(41, keys.document(t, "41"))
	must(t, scripted.applied(r.ctx))

	r.move(r.Ways, 10_000, 20_000)
	r.until("Core has the usage", r.frontHas)
	r.front.change(func() { r.front.lose = true })
	r.move(r.Ways, 3000, 4000)
	r.until("Core has the usage", r.frontHas)
	// The node reports an invalid revision and does not store it.
	scripted.serveText(42, bytes.Replace(keys.document(t, "42"), []byte(`"protocol":"blackhole"`), []byte(`"protocol":"whitehole"`), 1))
	must(t, Eventually(r.ctx, func() error {
		if len(sumPosts(t, r.front.taken()).errors) < 2 { // the first one is about the refused batch
			return errors.New("the node does not report it")
		}
		return nil
	}))
	r.front.close(t)
	r.move(r.Ways, 500, 600)
	r.untilWaiting(2)
	r.move(r.Ways, 70, 80)
	time.Sleep(collected)
	r.recordAgent()
	must(t, r.agent.Stop())
	r.MadeAt = time.Now().UTC()

	for _, post := range r.front.taken() {
		if !slices.ContainsFunc(r.Taken, post.same) {
			r.Taken = append(r.Taken, post)
		}
	}
	r.recordState(sumPosts(t, r.Taken), r.Taken)
	r.checkComplete()
	r.write(to)
}

// frontHas returns an error while a scripted Core lacks usage that the target counted.
func (r *recording) frontHas() error {
	have := sumPosts(r.t, r.front.taken()).usage
	for account, want := range r.usage {
		if have[account] != want {
			return fmt.Errorf("%+v has %+v, want %+v", account, have[account], want)
		}
	}
	return nil
}

// recordAgent records what the commands of the daemon show.
func (r *recording) recordAgent() {
	r.t.Helper()
	var err error
	r.Inbounds, err = r.inbounds()
	must(r.t, err)
	r.Aside = r.aside()
	if len(r.Aside) == 0 {
		r.t.Fatal("nothing is set aside")
	}
}

// recordState records node.db. It adds the batches that will arrive to rest, which is
// what Core has. taken are the batches that Core has accepted.
func (r *recording) recordState(rest upgradeSums, taken []upgradePost) {
	r.t.Helper()
	db := stateCopy(r.t, r.agent)
	id, err := db.Identity()
	must(r.t, err)
	r.NodeID = id.NodeID
	history, err := db.History()
	must(r.t, err)
	document, err := history.Current.Body.Unpack()
	must(r.t, err)
	r.Revision, r.Previous = history.Current.Revision, previousRevision(history)
	online, err := db.Online()
	must(r.t, err)
	r.Online = len(online)
	r.Waiting = takeWaiting(r.t, db)
	for _, key := range mergedKeys(r.t, r.agent) { // a merged batch has a new key
		if slices.ContainsFunc(r.Waiting, func(p upgradePost) bool { return p.Key == key }) {
			r.Tried = append(r.Tried, key)
		}
	}
	must(r.t, db.Flush(r.MadeAt, nil)) // the open minute
	arriving := append(slices.Clone(r.Waiting), takeWaiting(r.t, db)...)
	arriving = slices.DeleteFunc(arriving, func(p upgradePost) bool {
		return slices.ContainsFunc(taken, p.same)
	})
	more := sumPosts(r.t, arriving)
	for visitor, event := range online {
		event.EventType = wire.Offline
		if owner, known := db.Owner(visitor.Slot); !known || owner.Attribution == nil {
			r.t.Errorf("visitor %v is nobody's", visitor)
		}
		more.events = append(more.events, event)
	}
	r.Usage = usageRows(addTo(rest.usage, more.usage))
	r.Outbounds = addTo(rest.outbounds, more.outbounds)
	r.Events = eventTexts(append(rest.events, more.events...), r.MadeAt)
	r.describe(document, taken)
}

// describe logs how much of each kind the fixture has.
func (r *recording) describe(document []byte, taken []upgradePost) {
	kinds, known := map[string]int{}, map[string]int{}
	for _, p := range r.Waiting {
		kinds[p.Path]++
		if slices.ContainsFunc(taken, p.same) {
			known[p.Path]++
		}
	}
	r.t.Logf("revision %d (%d bytes), before it %d; %d online; waiting %v, of which Core has taken %v; %d set aside; %d rows of usage, %d outbounds, %d events",
		r.Revision, len(document), r.Previous, r.Online, kinds, known, len(r.Aside), len(r.Usage), len(r.Outbounds), len(r.Events))
}

// checkComplete checks that the recorded sums and the batches that are set aside are
// together what the target counted.
func (r *recording) checkComplete() {
	r.t.Helper()
	outbounds, want := r.Outbounds, r.outbounds
	for _, a := range r.Aside {
		if a.Kind == string(store.KindOutbound) {
			for _, item := range decoded[wire.OutboundUsageRequest](r.t, a.Body).Items {
				outbounds = addTo(outbounds, map[string]Traffic{item.Tag: {item.BytesUp, item.BytesDown}})
			}
		}
	}
	for tag := range outbounds {
		if _, is := want[tag]; !is {
			r.t.Logf("nobody's way leads through outbound %s, which has %+v", tag, outbounds[tag])
			delete(outbounds, tag)
		}
	}
	compareSums(r.t, "usage", usageMap(r.Usage), r.usage)
	compareSums(r.t, "outbound usage", outbounds, want)
	kinds := map[string]bool{}
	for _, p := range r.Waiting {
		kinds[p.Path] = true
	}
	for _, path := range []string{wire.PathUsage, wire.PathOutboundUsage, wire.PathSessionEvents, wire.PathError} {
		if !kinds[path] {
			r.t.Errorf("no batch waits for %s", path)
		}
	}
}

// write writes the fixture, unless the test has failed.
func (r *recording) write(to string) {
	r.t.Helper()
	if r.t.Failed() {
		r.t.Fatalf("%s is not written", to)
	}
	pack(r.t, r.upgradeFixture, r.dir, to)
	history, err := stateCopy(r.t, r.agent).History()
	must(r.t, err)
	document, err := history.Current.Body.Unpack()
	must(r.t, err)
	must(r.t, os.WriteFile(filepath.Join(to, "document.json"), document, 0o644))
	writeIndented(r.t, filepath.Join(to, "worker.json"), workerTexts(r.t, document))
}

// writeIndented writes a JSON file with one member on a line.
func writeIndented(t *testing.T, path string, v any) {
	t.Helper()
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "\t")
	must(t, encoder.Encode(v))
	must(t, os.WriteFile(path, text.Bytes(), 0o644))
}
