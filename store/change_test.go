package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// prints returns fingerprints for History.Admitted.
func prints(of ...uint64) (all []byte) {
	for _, n := range of {
		all = binary.BigEndian.AppendUint64(all, n)
	}
	return all
}

// changedStore has revision 1 with three changes, of which the second took 1 out and let 3 in.
func changedStore(t *testing.T) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	body, err := Pack([]byte(`{"revision":1}`))
	if err != nil {
		t.Fatal(err)
	}
	base := History{Admitted: prints(1, 2)}.Applied(Config{Revision: 1, ETag: "1", Body: body}, false)
	if err := s.Commit(time.Now(), nil, base, nil); err != nil {
		t.Fatal(err)
	}
	for n, c := range []Change{{Come: prints(4)}, {Gone: prints(1), Come: prints(3)}, {Gone: prints(4)}} {
		c.BaseRevision, c.Base, c.Revision, c.ETag = int64(n+1), fmt.Sprint(n+1), int64(n+2), fmt.Sprint(n+2)
		c.Delta = fmt.Appendf(nil, `{"to":%d}`, n+2)
		if n == 1 {
			c.Delta = slices.Concat(c.Delta, bytes.Repeat([]byte(" "), packFrom))
		}
		if !s.CanChange(c.Base, len(c.Delta)) || s.CanChange(c.ETag, 1) {
			t.Fatalf("revision %d cannot be changed, or the one after it can", n+1)
		}
		owner := Owner{Engine: EngineXray, Tag: "in-1", Key: fmt.Sprint(n), Attribution: &Attribution{UserID: int64(n), Protocol: "vless"}}
		if _, err := s.Assign([]Owner{owner}); err != nil {
			t.Fatal(err)
		}
		if err := s.Change(time.Now(), nil, c, []Owner{owner}); err != nil {
			t.Fatal(err)
		}
	}
	return s, dir
}

func reopen(t *testing.T, s *Store, dir string) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (s *Store) testHistory(t *testing.T) History {
	t.Helper()
	h, err := s.History()
	if err != nil {
		t.Fatal(err)
	}
	sorted := slices.Collect(slices.Chunk(h.Admitted, 8))
	slices.SortFunc(sorted, slices.Compare)
	h.Admitted = slices.Concat(sorted...)
	return h
}

// Changes are kept over a start, beside the configuration that they change, until a whole one
// comes. An earlier version refuses the file meanwhile.
func TestChangesAreKept(t *testing.T) {
	s, dir := changedStore(t)
	s = reopen(t, s, dir)
	h := s.testHistory(t)
	if h.Current.Revision != 1 || len(h.Changes) != 3 || string(h.Changes[2].Delta) != `{"to":4}` || len(h.Changes[1].Delta) < packFrom || h.Narrow || !slices.Equal(h.Admitted, prints(2, 3)) {
		t.Errorf("history %+v", h)
	}
	layoutOf := func() (n uint32) {
		_ = s.db.View(func(tx *bbolt.Tx) error {
			n = binary.BigEndian.Uint32(tx.Bucket([]byte(bucketMeta)).Get(keyLayout))
			return nil
		})
		return n
	}
	if layoutOf() != layoutChanges || !s.CanChange("4", 1) {
		t.Errorf("layout %d, and no change can follow", layoutOf())
	}
	if owner, has := s.Owner(1); !has || owner.Attribution.UserID != 1 {
		t.Errorf("owner %+v", owner)
	}
	again := h.RegisteredAnew()
	if err := s.Commit(time.Now(), nil, again, nil); err != nil {
		t.Fatal(err)
	}
	if h := s.testHistory(t); len(h.Changes) != 3 || s.CanChange("4", 1) {
		t.Errorf("after a new registration the history is %+v", h)
	}
	h.Changes = nil
	if err := s.Commit(time.Now(), nil, h.Applied(Config{Revision: 5, ETag: "5", Body: h.Current.Body}, true), nil); err != nil {
		t.Fatal(err)
	}
	if h := s.testHistory(t); len(h.Changes) != 0 || h.Current.Revision != 5 || h.Previous.Revision != 1 || layoutOf() != layout || !s.CanChange("5", 1) {
		t.Errorf("after a whole configuration the history is %+v, layout %d", h, layoutOf())
	}
}

// A configuration that runs in part is not changed, nor one that is full of changes.
func TestWhatCannotBeChanged(t *testing.T) {
	s, _ := changedStore(t)
	defer s.Close()
	h := s.testHistory(t)
	if s.CanChange("4", minChangeBytes) {
		t.Error("there is room for more changes than are kept")
	}
	if err := s.Commit(time.Now(), nil, h.WithPending(Config{Revision: 9, ETag: "9", Body: h.Current.Body}), nil); err != nil {
		t.Fatal(err)
	}
	if s.CanChange("4", 1) || s.CanChange("9", 1) {
		t.Error("a configuration that runs in part can be changed")
	}
}

// After damage to a change, the configuration before it is served, and nobody is known to be let
// in; with the whole configuration damaged, those who were let in last are known.
func TestDamagedChanges(t *testing.T) {
	damage := func(s *Store, bucket string, key []byte) {
		t.Helper()
		if err := s.db.Update(func(tx *bbolt.Tx) error {
			value := slices.Clone(tx.Bucket([]byte(bucket)).Get(key))
			value[len(value)/2] ^= 0x20
			return tx.Bucket([]byte(bucket)).Put(key, value)
		}); err != nil {
			t.Fatal(err)
		}
	}
	s, dir := changedStore(t)
	damage(s, bucketChanges, bigEndian64(2))
	s = reopen(t, s, dir)
	if h := s.testHistory(t); h.Current.Revision != 1 || len(h.Changes) != 1 || !h.Narrow || len(h.Admitted) != 0 || s.CanChange("2", 1) {
		t.Errorf("with a damaged change, the history is %+v", h)
	}
	s, dir = changedStore(t)
	damage(s, bucketChanges, bigEndian64(1))
	s = reopen(t, s, dir)
	if h := s.testHistory(t); h.Current.Revision != 1 || len(h.Changes) != 0 || !h.Narrow || len(h.Admitted) != 0 || s.CanChange("1", 1) {
		t.Errorf("with the first change damaged, the history is %+v", h)
	}
	s, dir = changedStore(t)
	damage(s, bucketMeta, keyConfig)
	s = reopen(t, s, dir)
	if h := s.testHistory(t); h.Current != nil || len(h.Changes) != 0 || !h.Narrow || !slices.Equal(h.Admitted, prints(2, 3)) {
		t.Errorf("with a damaged configuration, the history is %+v", h)
	}
	s, dir = changedStore(t)
	h := s.testHistory(t)
	h.Previous = &Config{Revision: 9, ETag: "9", Body: h.Current.Body}
	if err := s.Commit(time.Now(), nil, h, nil); err != nil {
		t.Fatal(err)
	}
	damage(s, bucketMeta, keyConfig)
	s = reopen(t, s, dir)
	if h := s.testHistory(t); h.Current.Revision != 9 || len(h.Changes) != 0 || !h.Narrow || !slices.Equal(h.Admitted, prints(2, 3)) {
		t.Errorf("with the previous configuration in its place, the history is %+v", h)
	}
}
