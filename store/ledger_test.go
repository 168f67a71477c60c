package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"nodeagent/coreclient/wire"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// counts are counters that a test sets.
type counts struct {
	epoch  string
	values map[uint32]traffic
}

func (c *counts) Epoch() string { return c.epoch }

func (c *counts) Read(slot uint32) (up, down uint64) {
	v := c.values[slot]
	return v.up, v.down
}

func (c *counts) add(slot uint32, up, down uint64) {
	v := c.values[slot]
	v.add(up, down)
	c.values[slot] = v
}

func owner(key string, user int64) Owner {
	return Owner{Engine: EngineXray, Tag: "in", Key: key, Attribution: &Attribution{UserID: user, SubscriptionID: new(user * 10), NodeProtocolID: 7, Protocol: "vless"}}
}

// delivered empties the outbox and returns its usage rows, and the outbounds'
// sums.
func delivered(t testing.TB, s *Store) ([]wire.UsageEntry, map[string]traffic) {
	t.Helper()
	var rows []wire.UsageEntry
	outbounds := map[string]traffic{}
	for _, kind := range []Kind{KindUsage, KindOutbound} {
		for {
			batch, found, err := s.Next(kind)
			if err != nil {
				t.Fatal(err)
			}
			if !found {
				break
			}
			rows = append(rows, entries(t, batch)...)
			for _, item := range items(t, batch) {
				sum := outbounds[item.Tag]
				sum.add(uint64(item.BytesUp), uint64(item.BytesDown))
				outbounds[item.Tag] = sum
			}
			if err := s.Done(batch); err != nil {
				t.Fatal(err)
			}
		}
	}
	return rows, outbounds
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func assign(t testing.TB, s *Store, owners ...Owner) []uint32 {
	t.Helper()
	slots, err := s.Assign(owners)
	if err != nil {
		t.Fatal(err)
	}
	return slots
}

func TestRowsOfAMinuteComeAtItsEnd(t *testing.T) {
	s := open(t, t.TempDir())
	c := &counts{epoch: "1", values: map[uint32]traffic{}}
	slots := assign(t, s, owner("a", 1), owner("idle", 2), Owner{Engine: EngineXray, Tag: "direct"})
	for second := range 60 {
		c.add(slots[0], 10, 20)
		c.add(slots[2], 10, 20)
		if err := s.Collect(noon.Add(time.Duration(second)*time.Second), c); err != nil {
			t.Fatal(err)
		}
	}
	if rows, _ := delivered(t, s); len(rows) != 0 {
		t.Fatalf("rows before the minute's end: %v", rows)
	}
	if err := s.Collect(noon.Add(time.Minute), c); err != nil {
		t.Fatal(err)
	}
	rows, outbounds := delivered(t, s)
	if len(rows) != 1 || rows[0].BytesUp != 600 || rows[0].BytesDown != 1200 || rows[0].UserID != 1 ||
		*rows[0].SubscriptionID != 10 || rows[0].NodeProtocolID != 7 || !rows[0].RecordedAt.Equal(noon) {
		t.Fatalf("rows %+v", rows)
	}
	if outbounds["direct"] != (traffic{600, 1200}) {
		t.Fatalf("outbounds %v", outbounds)
	}
}

// A client that leaves in the middle of a minute is attributed as it was when
// it was connected, and its slot's next owner inherits nothing.
func TestSlotsChangeHands(t *testing.T) {
	s := open(t, t.TempDir())
	c := &counts{epoch: "1", values: map[uint32]traffic{}}
	slot := assign(t, s, owner("a", 1))[0]
	c.add(slot, 5, 6)
	if err := s.Commit(noon, c, History{}, []Owner{owner("a", 2)}); err != nil {
		t.Fatal(err)
	}
	c.add(slot, 7, 8)
	if err := s.Release(noon, c, []uint32{slot}); err != nil {
		t.Fatal(err)
	}
	if again := assign(t, s, owner("b", 3))[0]; again != slot {
		t.Fatalf("slot %d was not used again but %d", slot, again)
	}
	c.add(slot, 1, 1)
	if err := s.Flush(noon.Add(time.Second), c); err != nil {
		t.Fatal(err)
	}
	rows, _ := delivered(t, s)
	got := map[int64]traffic{}
	for _, r := range rows {
		sum := got[r.UserID]
		sum.add(uint64(r.BytesUp), uint64(r.BytesDown))
		got[r.UserID] = sum
	}
	if got[1] != (traffic{5, 6}) || got[2] != (traffic{7, 8}) || got[3] != (traffic{1, 1}) {
		t.Fatalf("got %v", got)
	}
}

// The accounting model: whatever happens in between, what was counted is
// delivered, once.
func TestNothingIsLostOrDoubled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "ledger-*")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		m := &model{t: t, dir: dir, now: noon, counts: counts{epoch: "0", values: map[uint32]traffic{}}, slots: map[int64]uint32{}, sent: map[int64]traffic{}, got: map[int64]traffic{}}
		m.reopen()
		t.Repeat(map[string]func(*rapid.T){
			"traffic":     m.traffic,
			"collect":     m.collect,
			"come":        m.come,
			"go":          m.leave,
			"crash":       func(*rapid.T) { m.reopen() },
			"kill":        m.killInCollect,
			"new file":    m.newFile,
			"clock jumps": m.jump,
			"deliver":     m.deliver,
			"lost answer": m.loseAnswer,
		})
		m.must(m.store.Flush(m.now, &m.counts))
		m.deliver(t)
		m.must(m.store.Close())
		for user, want := range m.sent {
			if m.got[user] != want {
				t.Fatalf("user %d: delivered %v, counted %v", user, m.got[user], want)
			}
		}
	})
}

type model struct {
	t      *rapid.T
	dir    string
	store  *Store
	now    time.Time
	counts counts
	slots  map[int64]uint32 // of the users that are there
	sent   map[int64]traffic
	got    map[int64]traffic
	seen   map[string]bool // keys that Core has taken
	epochs int
}

func (m *model) must(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

// reopen is a crash of the daemon: what is in memory is gone, the counters stay.
func (m *model) reopen() {
	if m.store != nil {
		m.must(m.store.Close())
	}
	var err error
	m.store, err = Open(m.dir)
	m.must(err)
}

func (m *model) traffic(t *rapid.T) {
	if len(m.slots) == 0 {
		return
	}
	user := rapid.SampledFrom(sortedUsers(m.slots)).Draw(t, "user")
	up, down := rapid.Uint64Range(0, 1<<40).Draw(t, "up"), rapid.Uint64Range(0, 1<<40).Draw(t, "down")
	m.counts.add(m.slots[user], up, down)
	sum := m.sent[user]
	sum.add(up, down)
	m.sent[user] = sum
}

func sortedUsers(slots map[int64]uint32) []int64 {
	var users []int64
	for user := range int64(5) {
		if _, there := slots[user+1]; there {
			users = append(users, user+1)
		}
	}
	return users
}

func (m *model) collect(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
	m.must(m.store.Collect(m.now, &m.counts))
}

// killInCollect kills the daemon in a collect, between any two pages that it writes. bbolt writes the pages
// of a transaction in order, and those with the roots, the first two, last (bbolt's tx.go, Commit).
func (m *model) killInCollect(t *rapid.T) {
	path := Path(m.dir)
	read := func() []byte {
		data, err := os.ReadFile(path)
		m.must(err)
		return data
	}
	before := read()
	m.collect(t)
	after := read()
	m.must(m.store.Close())
	m.store = nil
	size := os.Getpagesize()
	page := func(of []byte, number int) []byte { return of[min(number*size, len(of)):min((number+1)*size, len(of))] }
	var written []int
	for number := range len(after) / size {
		if !bytes.Equal(page(before, number), page(after, number)) {
			written = append(written, number)
		}
	}
	slices.SortStableFunc(written, func(a, b int) int { return cmp.Compare(max(2-a, 0), max(2-b, 0)) })
	for _, number := range written[rapid.IntRange(0, len(written)).Draw(t, "written"):] {
		clear(page(after, number))
		copy(page(after, number), page(before, number))
	}
	m.must(os.WriteFile(path, after, 0o600))
	m.reopen()
}

func (m *model) come(t *rapid.T) {
	user := rapid.Int64Range(1, 5).Draw(t, "user")
	slots, err := m.store.Assign([]Owner{owner(fmt.Sprint("user-", user), user)})
	m.must(err)
	m.slots[user] = slots[0]
}

func (m *model) leave(t *rapid.T) {
	if len(m.slots) == 0 {
		return
	}
	user := rapid.SampledFrom(sortedUsers(m.slots)).Draw(t, "user")
	m.must(m.store.Release(m.now, &m.counts, []uint32{m.slots[user]}))
	delete(m.slots, user)
}

// newFile is a reboot: the old file is read a last time, the new one begins at
// zero.
func (m *model) newFile(*rapid.T) {
	m.must(m.store.Collect(m.now, &m.counts))
	m.epochs++
	m.counts = counts{epoch: fmt.Sprint(m.epochs), values: map[uint32]traffic{}}
}

func (m *model) jump(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(-3600, 3600).Draw(t, "jump")) * time.Second)
}

// take is Core: a key that it has seen changes nothing.
func (m *model) take(batch Batch) {
	if m.seen[batch.Key] {
		return
	}
	if m.seen == nil {
		m.seen = map[string]bool{}
	}
	m.seen[batch.Key] = true
	for _, row := range entries(m.t, batch) {
		sum := m.got[row.UserID]
		sum.add(uint64(row.BytesUp), uint64(row.BytesDown))
		m.got[row.UserID] = sum
	}
}

func (m *model) deliver(*rapid.T) {
	for {
		batch, found, err := m.store.Next(KindUsage)
		m.must(err)
		if !found {
			return
		}
		m.take(batch)
		m.must(m.store.Done(batch))
	}
}

func (m *model) loseAnswer(*rapid.T) {
	batch, found, err := m.store.Next(KindUsage)
	m.must(err)
	if found {
		m.take(batch)
	}
}

func TestDamagedFileIsNamed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	assign(t, s, owner("a", 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"text":         func([]byte) []byte { return []byte("not a database at all") },
		"both headers": func(b []byte) []byte { clear(b[:8192]); return b },
		"inner pages": func(b []byte) []byte {
			for i := 8192; i < len(b); i++ {
				b[i] = 0xff
			}
			return b
		},
		"cut": func(b []byte) []byte { return b[:9000] },
	} {
		t.Run(name, func(t *testing.T) {
			bad := t.TempDir()
			if err := os.WriteFile(filepath.Join(bad, fileName), damage(append([]byte(nil), data...)), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(bad)
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("open gave %v, %v; want ErrCorrupt", s, err)
			}
		})
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(dir); !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
}

// Layout 1 has the epoch once for each engine: a version that reads both finds both.
func TestTheEpochIsKeptForEachEngine(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Collect(noon, &counts{epoch: "7"}); err != nil {
		t.Fatal(err)
	}
	_ = s.db.View(func(tx *bbolt.Tx) error {
		for _, key := range []string{"epoch/xray", "epoch/telemt"} {
			if got := tx.Bucket([]byte(bucketMeta)).Get([]byte(key)); string(got) != "7" {
				t.Errorf("%s is %q, want 7", key, got)
			}
		}
		return nil
	})
}
