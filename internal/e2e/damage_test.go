package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

// changeState changes the state file of an agent that does not run.
func (w *world) changeState(change func(tx *bbolt.Tx) error) {
	w.t.Helper()
	db, err := bbolt.Open(w.agent.file("state/node.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	must(w.t, err)
	must(w.t, errors.Join(db.Update(change), db.Close()))
}

// flipValue flips a byte in the middle of a value, that of the first key where key is nil.
func (w *world) flipValue(bucket string, key []byte) {
	w.t.Helper()
	w.changeState(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if key == nil {
			first, _ := b.Cursor().First()
			key = bytes.Clone(first)
		}
		value := bytes.Clone(b.Get(key))
		value[len(value)/2] ^= 1
		return b.Put(key, value)
	})
}

// queueEvents queues batches of session events, so that their queue has a page of its own.
func (w *world) queueEvents(count int) {
	w.t.Helper()
	db, err := store.Open(w.agent.file("state"))
	must(w.t, err)
	for i := range count {
		must(w.t, db.Sessions(time.Now(), []store.SessionEvent{{
			SessionKey: store.SessionKey{Slot: 0},
			Event:      wire.SessionEvent{UserID: 1, Protocol: wire.VpnProtocol("vless"), EventType: wire.Offline, OccurredAt: time.Now().Add(-time.Duration(i) * time.Second)},
		}}))
	}
	must(w.t, db.Close())
}

// zeroPage zeroes the first leaf page of a bucket.
func (w *world) zeroPage(bucket string) {
	w.t.Helper()
	var root, size int
	w.changeState(func(tx *bbolt.Tx) error {
		root, size = int(tx.Bucket([]byte(bucket)).Root()), tx.DB().Info().PageSize
		return nil
	})
	if root == 0 {
		w.t.Fatalf("the bucket %s has no page of its own", bucket)
	}
	file, err := os.OpenFile(w.agent.file("state/node.db"), os.O_RDWR, 0)
	must(w.t, err)
	_, err = file.WriteAt(make([]byte, size), int64(root*size))
	must(w.t, errors.Join(err, file.Close()))
}

// TestDamagedState damages a batch, a page of the queue of events, and the configuration. Each
// time the daemon starts, serves, delivers the rest, and says what was damaged.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(w *world)
		says   string // in 'outbox list'
	}{
		"a batch": {func(w *world) {
			w.queueEvents(2)
			w.flipValue("events", nil)
		}, "a batch of events was damaged"},
		"a page of events": {func(w *world) {
			w.queueEvents(60)
			w.zeroPage("events")
		}, "pages of the state file were damaged"},
		"the configuration": {func(w *world) { w.flipValue("meta", []byte("config")) }, "a stored configuration was damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.protocol()
			alice := w.subscriber("alice")
			w.start()
			client := w.linkClient(alice.Links[0])
			target := w.target()
			must(t, client.Exchange(target.Addr(), 1000, 50_000))
			w.core.Kill()
			must(t, client.Exchange(target.Addr(), 2000, 70_000))
			w.stopAgent() // its last rows wait
			c.damage(w)
			must(t, w.core.Start(w.ctx))
			w.start()
			must(t, Eventually(w.ctx, func() error { return client.Exchange(target.Addr(), 3000, 10_000) }))
			text, err := w.agent.StatusText(w.ctx)
			must(t, err)
			if !strings.Contains(text, "1 damaged values of the state file are set aside") {
				t.Errorf("status does not name the damage:\n%s", text)
			}
			list, stderr, err := output(w.ctx, w.progs.Agent, "outbox", "list", "--runtime-dir", w.agent.file("run"))
			if err != nil || !strings.Contains(list, c.says) {
				t.Errorf("outbox list: %v %s\n%s", err, stderr, list)
			}
			must(t, Eventually(w.ctx, func() error {
				var answer any
				if err := w.core.Do(w.ctx, &answer, "node", "errors", "node"); err != nil {
					return err
				}
				if text := fmt.Sprint(answer); !strings.Contains(text, "damaged values of the state file") || !strings.Contains(text, "store_failed") {
					return fmt.Errorf("Core's errors of the node: %s", text)
				}
				return nil
			}))
			w.damageIsManaged(list)
			w.stopAgent()
			w.wantUsage(map[Account]Traffic{{User: alice.UserID, Protocol: p.ID}: target.Traffic()})
		})
	}
}

// damageIsManaged shows, retries and drops the damaged value of the list.
func (w *world) damageIsManaged(list string) {
	w.t.Helper()
	var id string
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "damaged" {
			id = fields[1]
		}
	}
	run := func(verb string) (string, string, error) {
		return output(w.ctx, w.progs.Agent, "outbox", verb, id, "--runtime-dir", w.agent.file("run"))
	}
	if shown, stderr, err := run("show"); err != nil || !strings.Contains(shown, `"reason"`) {
		w.t.Errorf("show %s: %v %s\n%s", id, err, stderr, shown)
	}
	if _, stderr, err := run("retry"); err == nil || !strings.Contains(stderr, "damaged and can't be sent") {
		w.t.Errorf("retry %s: %v %s", id, err, stderr)
	}
	if _, stderr, err := run("drop"); err != nil {
		w.t.Errorf("drop %s: %v %s", id, err, stderr)
	}
	text, err := w.agent.StatusText(w.ctx)
	if must(w.t, err); strings.Contains(text, "damaged values") && !strings.Contains(text, "(over)") {
		w.t.Errorf("status still names the damage:\n%s", text)
	}
}

// TestBothMetaPages damages the two pages without which nothing in the state file can be found.
func TestBothMetaPages(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(dir)
	must(t, err)
	must(t, db.Close())
	path := filepath.Join(dir, "node.db")
	raw, err := os.ReadFile(path)
	must(t, err)
	clear(raw[:2*os.Getpagesize()])
	must(t, os.WriteFile(path, raw, 0o600))
	refused(t, []string{"damaged", "put a copy of it back", "register"}, programs(t).Agent, "run", "--state-dir", dir, "--runtime-dir", t.TempDir())
}
