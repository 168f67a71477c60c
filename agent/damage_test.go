package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
	"nodeagent/telemt/service"
	"nodeagent/xray/state"
)

// flip flips a byte in the middle of a value of the state file.
func flip(t *testing.T, dir, bucket string, key []byte) {
	t.Helper()
	db, err := bbolt.Open(store.Path(dir), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if key == nil {
			key, _ = b.Cursor().First()
			key = bytes.Clone(key)
		}
		value := bytes.Clone(b.Get(key))
		value[len(value)/2] ^= 1
		return b.Put(key, value)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func openIn(t *testing.T, dir string) *store.Store {
	t.Helper()
	db, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// keysOf returns the clients of each inbound of Xray, sorted.
func keysOf(s state.State) map[string][]string {
	keys := map[string][]string{}
	for tag, in := range s.Inbounds {
		keys[tag] = []string{}
		for _, c := range in.Clients {
			keys[tag] = append(keys[tag], c.Key)
		}
		slices.Sort(keys[tag])
	}
	return keys
}

// A damaged configuration brings back the one before, without the clients that it had removed.
// Heartbeats name no revision, so that Core sends its own.
func TestDamagedConfiguration(t *testing.T) {
	all := []string{"stays", "left", "turned"}
	older := body(t, 3, all,
		[]any{vlessClient("stays", "1"), vlessClient("left", "2"), vlessClient("turned", "4")},
		[]any{account("stays", "a"), account("left", "b"), account("turned", "d")},
		[]any{mtprotoClient("stays", "a"), mtprotoClient("turned", "b")})
	newer := body(t, 4, []string{"stays", "turned", "new"},
		[]any{vlessClient("stays", "1"), vlessClient("turned", "6"), vlessClient("new", "7")},
		[]any{account("stays", "a"), account("turned", "e")},
		[]any{mtprotoClient("stays", "a"), mtprotoClient("turned", "c")})
	for name, c := range map[string]struct {
		history func(older, newer store.Config) store.History
		damaged string
	}{
		"current": {func(older, newer store.Config) store.History { return store.History{Current: &newer, Previous: &older} }, "config"},
		"pending": {func(older, newer store.Config) store.History { return store.History{Current: &older, Pending: &newer} }, "pending"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := openIn(t, dir)
			lets, _, err := parseConfig(newer)
			if err != nil {
				t.Fatal(err)
			}
			history := c.history(pack(t, 3, older), pack(t, 4, newer))
			if history.Admitted, err = lets.admitted(); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Commit(time.Now(), nil, history, nil), db.Close()); err != nil {
				t.Fatal(err)
			}
			flip(t, dir, "meta", []byte(c.damaged))
			n := newNode(t, openIn(t, dir))
			n.boot()
			n.restore(t.Context())
			want := map[string][]string{"vless-7": {"stays"}, "socks-8": {"stays"}}
			if got := keysOf(n.running.xray); !equalKeys(got, want) {
				t.Errorf("served are %v, want %v", got, want)
			}
			if got := n.running.mtproto.Inbounds[0].Clients; len(got) != 1 || got[0].ID != "stays" {
				t.Errorf("MTProto serves %v", ids(got))
			}
			if r := n.sync.runningRevision(); r != nil {
				t.Errorf("heartbeats name revision %d", *r)
			}
			status, err := n.Status()
			if err != nil || status.Outbox.Damaged != 1 || !slices.ContainsFunc(status.Problems, func(p Problem) bool { return strings.Contains(p.Message, "damaged") }) {
				t.Errorf("status: %+v, %v", status, err)
			}
			// Core sends its own, which takes the place of the damaged one.
			if err := n.apply(t.Context(), body(t, 5, []string{"stays"}, []any{vlessClient("stays", "1")}, nil, nil), "etag"); err != nil {
				t.Fatal(err)
			}
			if got := kept(t, n.store); got != 5 {
				t.Errorf("the next start serves revision %d, want 5", got)
			}
			if h, err := n.store.History(); err != nil || h.Narrow {
				t.Errorf("%+v, %v", h, err)
			}
		})
	}
}

func equalKeys(a, b map[string][]string) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

func ids(clients []service.Client) (all []string) {
	for _, c := range clients {
		all = append(all, c.ID)
	}
	return all
}

// Damage is reported to Core once, also over a restart, and the batches behind it are delivered.
func TestDamageIsReportedOnce(t *testing.T) {
	dir := t.TempDir()
	db := openIn(t, dir)
	for _, text := range []string{"first", "second"} {
		if err := db.Report(time.Now(), wire.PathError, wire.ErrorRequest{Message: text}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, dir, "reports", nil)
	for range 2 {
		db = openIn(t, dir)
		n := newNode(t, db)
		n.boot()
		n.collect(t.Context())
		if _, err := n.Status(); err != nil {
			t.Fatal(err)
		}
		n.collect(t.Context())
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	db = openIn(t, dir)
	var messages []string
	for {
		batch, found, err := db.Next(store.KindReports)
		if err != nil {
			t.Fatal(err)
		}
		if !found {
			break
		}
		var report wire.ErrorRequest
		if err := errors.Join(json.Unmarshal(batch.Body, &report), db.Done(batch)); err != nil {
			t.Fatal(err)
		}
		messages = append(messages, report.Code+" "+report.Message)
	}
	if len(messages) != 2 || messages[0] != " second" || !strings.Contains(messages[1], "store_failed 1 damaged values") {
		t.Errorf("the reports are %q", messages)
	}
	if all, _ := filepath.Glob(store.Path(dir) + "*"); len(all) != 1 {
		t.Errorf("the file was rebuilt: %q", all)
	}
}

// withLostChange stores a good configuration, the one that runs, and a change of it that removed the
// client "left" and that cannot be decoded.
func withLostChange(t *testing.T, dir string) {
	t.Helper()
	clients := []any{vlessClient("stays", "1"), vlessClient("left", "2")}
	all := []string{"stays", "left"}
	previous, current := pack(t, 2, body(t, 2, all, clients, nil, nil)), pack(t, 3, body(t, 3, all, clients, nil, nil))
	current.ETag = `"3"`
	after, _, err := parseConfig(body(t, 4, []string{"stays"}, clients[:1], nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	history := store.History{Current: &current, Previous: &previous}
	if history.Admitted, err = after.admitted(); err != nil {
		t.Fatal(err)
	}
	db := openIn(t, dir)
	if err := db.Commit(time.Now(), nil, history, nil); err != nil || !db.CanChange(`"3"`, 0) {
		t.Fatal("no change can be stored", err)
	}
	change := store.Change{BaseRevision: 3, Base: `"3"`, Revision: 4, ETag: `"4"`, Delta: []byte("no delta")}
	if err := errors.Join(db.Change(time.Now(), nil, change, nil), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// The next whole document from Core takes the place of a stored change that cannot be applied.
func TestLostChangeGivesWay(t *testing.T) {
	for name, c := range map[string]struct {
		fail    error // of Xray, over the new document
		current int64
		narrow  bool
	}{
		"it runs":    {nil, 5, false},
		"it doesn't": {errors.New("no memory"), 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			withLostChange(t, dir)
			db := openIn(t, dir)
			n := newNode(t, db)
			n.boot()
			n.restore(t.Context())
			n.engine.fail = func(s state.State) error {
				if s.Clients() < 1 { // the clients that it removes are out in any case
					return nil
				}
				return c.fail
			}
			newer := body(t, 5, []string{"new"}, []any{vlessClient("new", "7")}, nil, nil)
			if err := n.apply(t.Context(), newer, `"5"`); (err == nil) != (c.fail == nil) {
				t.Fatal(err)
			}
			h, err := db.History()
			if err != nil || h.Current.Revision != c.current || len(h.Changes) != 0 || h.Narrow != c.narrow || (h.Pending != nil) != c.narrow {
				t.Errorf("stored is %+v, %v", h, err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			next := newNode(t, openIn(t, dir))
			next.boot()
			next.restore(t.Context())
			want := map[string][]string{"vless-7": {}}
			if c.fail == nil {
				want["vless-7"] = []string{"new"}
			}
			if got := keysOf(next.running.xray); !equalKeys(got, want) {
				t.Errorf("the next start serves %v, want %v", got, want)
			}
		})
	}
}

// A rollback works beside a stored change that cannot be applied. Clients that the change has removed stay
// out.
func TestRollbackBesideALostChange(t *testing.T) {
	dir := t.TempDir()
	withLostChange(t, dir)
	n := newNode(t, openIn(t, dir))
	n.boot()
	n.restore(t.Context())
	for range crashesInARow {
		n.crashes.record(time.Now())
	}
	n.rollBack(t.Context())
	if got, want := keysOf(n.running.xray), map[string][]string{"vless-7": {"stays"}}; kept(t, n.store) != 2 || !equalKeys(got, want) {
		t.Errorf("revision %d is kept, and %v served, want revision 2 and %v", kept(t, n.store), got, want)
	}
}
