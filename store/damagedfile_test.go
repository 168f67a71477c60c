package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"go.etcd.io/bbolt"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
)

// sample is a state file with everything in it, and what is known of it.
type sample struct {
	raw      []byte
	counters *counts
	// core has the usage that Core took before the damage: Idempotency-Key → rows.
	core    map[string][]wire.UsageEntry
	batches map[string]string // Idempotency-Key → body of what waits
	values  []place
	pages   map[string][]int // that are in use, by type
	history History
}

// place is where a value is in the file, in bytes.
type place struct {
	bucket, key string
	start, end  int // of key and value
	head        int // page of the leaf
	inline      bool
}

const (
	sampleClients = 700
	filePage      = 4096
)

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// makeSample makes the file as a daemon does. seed varies it.
func makeSample(t *testing.T, seed uint64) *sample {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	s := open(t, dir)
	s.db.NoSync = true
	c := &counts{epoch: "0123456789abcdef", values: map[uint32]traffic{}}
	check(t, s.SaveIdentity(noon, Identity{NodeID: "node", AuthKey: secret.Text("key"), CoreURL: "https://core.test"}))
	var owners []Owner
	for i := range sampleClients {
		owners = append(owners, owner(fmt.Sprint("client-", i), int64(i+1)))
	}
	owners = append(owners, Owner{Engine: EngineXray, Tag: "direct"})
	slots := assign(t, s, owners...)
	f := &sample{counters: c, core: map[string][]wire.UsageEntry{}, batches: map[string]string{}, pages: map[string][]int{}}
	one, two, three := packed(t, 1), packed(t, 2), packed(t, 3)
	f.history = History{Current: &two, Previous: &one, Pending: &three, Admitted: bytes.Repeat([]byte("admitted"), 40*int(seed*seed*seed))}
	check(t, s.Commit(noon, c, f.history, owners))
	now := noon
	for minute := range 30 {
		for _, slot := range slots {
			if random.IntN(3) > 0 {
				c.add(slot, random.Uint64N(1000), random.Uint64N(100_000))
			}
		}
		now = noon.Add(time.Duration(minute) * time.Minute)
		check(t, s.Collect(now, c))
		check(t, s.Report(now, wire.PathError, wire.ErrorRequest{Message: fmt.Sprint("report ", minute)}))
		var events []SessionEvent
		for i := range 20 {
			events = append(events, SessionEvent{
				SessionKey{slots[(minute*20+i)%len(slots)], netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i))},
				wire.SessionEvent{UserID: int64(i), Protocol: "vless", EventType: wire.Online, OccurredAt: now},
			})
		}
		check(t, s.Sessions(now, events))
		if minute%10 == 5 {
			batch, found, err := s.Next(KindUsage)
			if check(t, err); !found {
				t.Fatal("no usage waits")
			}
			f.core[batch.Key] = rowsOf(t, batch.Body)
			check(t, s.Done(batch))
			batch, _, err = s.Next(KindEvents)
			check(t, err)
			check(t, s.SetAside(now, batch, "refused"))
		}
	}
	for _, slot := range slots { // counted and not in a row yet
		c.add(slot, 7, 11)
	}
	check(t, s.Collect(now, c))
	for _, slot := range slots { // counted and not read yet
		c.add(slot, 3, 5)
	}
	raw, err := os.ReadFile(filepath.Join(dir, fileName))
	check(t, err)
	f.raw = raw
	f.note(t, s)
	check(t, s.Close())
	for i := range f.values { // the leaf begins with its own number
		v := &f.values[i]
		for v.head = v.start / filePage; binary.NativeEndian.Uint64(raw[v.head*filePage:]) != uint64(v.head); {
			v.head--
		}
	}
	return f
}

func rowsOf(tb testing.TB, body []byte) []wire.UsageEntry {
	tb.Helper()
	var request wire.UsageRequest
	check(tb, json.Unmarshal(body, &request))
	return request.Entries
}

// note notes what waits, and where each value is in the file.
func (f *sample) note(t *testing.T, s *Store) {
	t.Helper()
	base := s.db.Info().Data
	check(t, s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			bucket := tx.Bucket([]byte(name))
			check(t, bucket.ForEach(func(k, v []byte) error {
				start := int(uintptr(unsafe.Pointer(&k[0])) - base)
				if bucket.Root() == 0 { // it is inside the root bucket's page, of which bbolt has a copy
					root := int(tx.Cursor().Bucket().Root()) * filePage
					start = root + bytes.Index(f.raw[root:][:filePage], append(bytes.Clone(k), v...))
				}
				f.values = append(f.values, place{bucket: name, key: string(k), start: start, end: start + len(k) + len(v), inline: bucket.Root() == 0})
				return nil
			}))
		}
		for number := 0; ; number++ {
			info, err := tx.Page(number)
			if check(t, err); info == nil {
				break
			}
			f.pages[info.Type] = append(f.pages[info.Type], number)
			number += info.OverflowCount
		}
		delete(f.pages, "free")
		for _, kind := range Kinds {
			check(t, tx.Bucket([]byte(kind)).ForEach(func(k, v []byte) error {
				batch, _, err := decodeBatch(kind, k, v)
				check(t, err)
				f.batches[batch.Key] = string(batch.Body)
				return nil
			}))
		}
		return nil
	}))
}

// harm is how a file was damaged.
type harm struct {
	raw    []byte
	what   string
	single bool // one place alone
	cut    bool
}

// any returns a value at random, of each bucket as often.
func (f *sample) any(random *rand.Rand) place {
	for {
		bucket := buckets[random.IntN(len(buckets))]
		of := slices.DeleteFunc(slices.Clone(f.values), func(v place) bool { return v.bucket != bucket })
		if len(of) > 0 {
			return of[random.IntN(len(of))]
		}
	}
}

// damage damages a copy of the file in one of the ways in which disks do.
func (f *sample) damage(random *rand.Rand) harm {
	h := harm{raw: bytes.Clone(f.raw), single: true}
	count := 1
	if random.IntN(4) == 0 {
		count, h.single = 2+random.IntN(4), false
	}
	for range count {
		number := random.IntN(len(h.raw) / filePage)
		if kinds := slices.Sorted(maps.Keys(f.pages)); random.IntN(4) > 0 {
			of := f.pages[kinds[random.IntN(len(kinds))]]
			number = of[random.IntN(len(of))]
		}
		page := h.raw[number*filePage:][:filePage]
		switch random.IntN(9) {
		case 0, 7, 8:
			at := f.any(random)
			h.raw[at.start+random.IntN(at.end-at.start)] ^= 1 << random.IntN(8)
			h.what += fmt.Sprintf("a flip in %s %x; ", at.bucket, at.key)
		case 1, 2: // near the beginning of a page: its header and elements
			place := random.IntN(200)
			page[place] ^= 1 << random.IntN(8)
			h.what += fmt.Sprintf("a flip in byte %d of page %d; ", place, number)
		case 3:
			clear(page)
			h.what += fmt.Sprintf("page %d zeroed; ", number)
		case 4:
			for i := range page {
				page[i] = byte(random.Uint32())
			}
			h.what += fmt.Sprintf("page %d random; ", number)
		case 5:
			copy(page, f.raw[random.IntN(len(f.raw)/filePage)*filePage:][:filePage])
			h.what += fmt.Sprintf("page %d is another one; ", number)
		case 6:
			if random.IntN(4) == 0 {
				h.raw, h.cut = h.raw[:number*filePage+random.IntN(filePage)], true
				h.what += fmt.Sprintf("cut in page %d; ", number)
				return h
			}
			at := number*filePage + random.IntN(filePage-64)
			for i := range h.raw[at:][:64] {
				h.raw[at+i] ^= byte(random.Uint32())
			}
			h.what += fmt.Sprintf("64 bytes at %d; ", at)
		}
	}
	return h
}

// touched reports whether the damage touched a value, or the part of its page that says where it is.
func (f *sample) touched(h harm, v place) bool {
	differ := func(start, end int) bool {
		return end > len(h.raw) || !bytes.Equal(h.raw[start:end], f.raw[start:end])
	}
	page := f.raw[v.head*filePage:]
	count := int(binary.NativeEndian.Uint16(page[10:]))
	if v.inline {
		return differ(v.head*filePage, (v.head+1)*filePage)
	}
	return differ(v.start, v.end) || differ(v.head*filePage, v.head*filePage+16+16*count)
}

// TestDamagedFiles damages a state file in several hundred ways. The store opens, or says what to
// do. What was not damaged is there, and nothing is counted twice.
func TestDamagedFiles(t *testing.T) {
	const parallel, rounds = 6, 50
	samples := []*sample{makeSample(t, 1), makeSample(t, 2)}
	for part := range uint64(parallel) {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(part, 4))
			opened := 0
			for round := range rounds {
				if damageOne(t, samples[round%len(samples)], random, fmt.Sprintf("round %d", round)) {
					opened++
				}
				if t.Failed() {
					return
				}
			}
			if opened < rounds*3/4 {
				t.Errorf("%d of %d damaged files were opened", opened, rounds)
			}
		})
	}
}

// damageOne damages a file and does with it what a daemon does. It reports whether the file was
// opened.
func damageOne(t *testing.T, f *sample, random *rand.Rand, name string) (opened bool) {
	t.Helper()
	h := f.damage(random)
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, fileName), h.raw, 0o600))
	s, err := Open(dir)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "register") || h.single && !h.cut {
			t.Errorf("%s, %s: %v", name, h.what, err)
		}
		return false
	}
	s.db.NoSync = true
	run := &recovery{t: t, sample: f, harm: h, name: name + ", " + h.what, store: s}
	run.check(random.IntN(2) == 0)
	check(t, s.Close())
	return true
}

// TestSteppedBack damages the meta page that counts, after a batch was sent. bbolt takes the other
// one, in which the batch was not sent yet. Core took it: it must keep its key.
func TestSteppedBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	minutes(t, s, noon, 5, 1)
	sent, found, err := s.Next(KindUsage)
	if check(t, err); !found {
		t.Fatal("no usage waits")
	}
	check(t, s.Close())
	path := filepath.Join(dir, fileName)
	raw, err := os.ReadFile(path)
	check(t, err)
	newest := 0
	if binary.NativeEndian.Uint64(raw[filePage+64:]) > binary.NativeEndian.Uint64(raw[64:]) {
		newest = 1
	}
	raw[newest*filePage+40] ^= 4
	check(t, os.WriteFile(path, raw, 0o600))
	s = open(t, dir)
	_, err = s.Compact(noon.Add(30 * 24 * time.Hour))
	check(t, err)
	again, found, err := s.Next(KindUsage)
	if err != nil || !found || again.Key != sent.Key || !bytes.Equal(again.Body, sent.Body) {
		t.Errorf("sent again as %s %s, %v; want %s %s", again.Key, again.Body, err, sent.Key, sent.Body)
	}
	if kept, _ := filepath.Glob(path + keptSuffix + "*"); len(kept) != 1 {
		t.Errorf("the damaged file is kept as %q", kept)
	}
}

// TestDamagedKey changes the key of a configuration, which damages no page. The configuration is
// missed all the same.
func TestDamagedKey(t *testing.T) {
	for _, key := range [][]byte{keyConfig, keyPending} {
		dir := t.TempDir()
		s := open(t, dir)
		one, two := packed(t, 1), packed(t, 2)
		check(t, s.Commit(noon, nil, History{Current: &one, Previous: &two, Pending: &two, Admitted: []byte("12345678")}, nil))
		check(t, s.db.Update(func(tx *bbolt.Tx) error {
			meta := tx.Bucket([]byte(bucketMeta))
			other := bytes.Clone(key)
			other[1] ^= 1
			return errors.Join(meta.Put(other, bytes.Clone(meta.Get(key))), meta.Delete(key))
		}))
		check(t, s.Close())
		s = open(t, dir)
		h, err := s.History()
		if err != nil || !h.Narrow || h.Current == nil || string(h.Admitted) != "12345678" {
			t.Errorf("%s has another key: %+v, %v", key, h, err)
		}
		if list, err := s.ListDamaged(); err != nil || len(list) != 1 {
			t.Errorf("%s has another key: damaged are %v, %v", key, list, err)
		}
	}
}
