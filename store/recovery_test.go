package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// recovery is what a daemon does with a damaged file.
type recovery struct {
	t *testing.T
	*sample
	harm  harm
	name  string
	store *Store
	core  map[string][]wire.UsageEntry
	took  map[string]string // Idempotency-Key → body
}

func (r *recovery) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%s: %v", r.name, err)
	}
}

func (r *recovery) check(compact bool) {
	s := r.store
	r.core, r.took = maps.Clone(r.sample.core), map[string]string{}
	now := noon.Add(40 * time.Minute)
	r.must(s.Flush(now, r.counters))
	_, err := s.Waiting()
	r.must(err)
	_, err = s.Online()
	r.must(err)
	_, err = s.ListAside()
	r.must(err)
	r.checkHistory()
	if _, err := s.Identity(); err != nil && (r.harm.single && !r.harm.cut || !errors.Is(err, ErrNotRegistered)) {
		r.t.Errorf("%s: identity: %v", r.name, err)
	}
	// A new client gets nothing of what the clients before it moved.
	_, err = s.Assign([]Owner{owner("new", 9999)})
	r.must(err)
	r.must(s.Collect(now.Add(time.Minute), r.counters))
	r.must(s.Flush(now.Add(2*time.Minute), r.counters))
	if compact {
		_, err := s.Compact(now.Add(30 * 24 * time.Hour))
		r.must(err)
	}
	for _, kind := range Kinds {
		r.deliver(kind)
	}
	r.checkUsage(compact)
	r.checkSetAside(compact)
}

// deliver takes what waits as Core does: a key that it has had before is nothing new.
func (r *recovery) deliver(kind Kind) {
	for {
		batch, found, err := r.store.Next(kind)
		r.must(err)
		if !found {
			return
		}
		r.took[batch.Key] = string(batch.Body)
		if body, known := r.batches[batch.Key]; known && body != string(batch.Body) {
			r.t.Errorf("%s: %s batch %s has another body", r.name, kind, batch.Key)
		}
		if kind == KindUsage && r.core[batch.Key] == nil {
			r.core[batch.Key] = rowsOf(r.t, batch.Body)
		}
		r.must(r.store.Done(batch))
	}
}

// checkUsage checks that nobody is billed for more than they moved.
func (r *recovery) checkUsage(compacted bool) {
	billed := map[int64]traffic{}
	for _, rows := range r.core {
		for _, row := range rows {
			b := billed[row.UserID]
			b.add(uint64(row.BytesUp), uint64(row.BytesDown))
			billed[row.UserID] = b
		}
	}
	exact := r.harm.single && !r.harm.cut && !compacted
	for _, v := range r.values {
		if touched := r.touched(r.harm, v); touched && v.bucket != bucketOnline && v.bucket != bucketAside && v.bucket != string(KindEvents) && v.bucket != string(KindReports) {
			exact = false
		}
	}
	short := 0
	for slot, moved := range r.counters.values {
		user := int64(slot) + 1
		if user > sampleClients {
			continue
		}
		if b := billed[user]; b.up > moved.up || b.down > moved.down {
			r.t.Errorf("%s: user %d moved %v and is billed for %v", r.name, user, moved, b)
			return
		} else if b != moved {
			short++
		}
	}
	if b := billed[9999]; b != (traffic{}) {
		r.t.Errorf("%s: a new client is billed for %v", r.name, b)
	}
	if exact && short > 0 {
		r.t.Errorf("%s: %d users are billed for less than they moved, and nothing of it was damaged", r.name, short)
	}
}

// checkSetAside checks that what was not damaged was delivered, and that the rest is named.
func (r *recovery) checkSetAside(compacted bool) {
	waiting, err := r.store.Waiting()
	r.must(err)
	unreported, err := r.store.Unreported()
	r.must(err)
	missing := 0
	for key := range r.batches {
		if _, took := r.took[key]; !took && (!compacted || !isMerged(r.batches[key])) {
			missing++
		}
	}
	touched := 0
	for _, v := range r.values {
		if isBatch := v.bucket == string(KindUsage) || v.bucket == string(KindOutbound) || v.bucket == string(KindEvents) || v.bucket == string(KindReports); isBatch && r.touched(r.harm, v) {
			touched++
		}
	}
	if r.harm.single && !r.harm.cut && missing > touched {
		r.t.Errorf("%s: %d batches are missing, %d were damaged", r.name, missing, touched)
	}
	if missing > 0 && (waiting.DamagedEver == 0 || len(unreported) == 0) {
		r.t.Errorf("%s: %d batches are missing in silence", r.name, missing)
	}
	list, err := r.store.ListDamaged()
	r.must(err)
	if len(list) != waiting.Damaged || len(list) > maxDamaged {
		r.t.Errorf("%s: %d damaged values in the list, %d counted", r.name, len(list), waiting.Damaged)
	}
	for _, d := range list {
		if err := r.store.RetryAside(d.ID); !errors.Is(err, ErrDamaged) {
			r.t.Errorf("%s: retry of a damaged value: %v", r.name, err)
		}
		if body, err := r.store.ShowAside(d.ID); err != nil || !json.Valid(body) {
			r.t.Errorf("%s: show a damaged value: %s, %v", r.name, body, err)
		}
	}
	r.must(r.store.ReportDamage(noon, unreported, wire.PathError, wire.ErrorRequest{Message: "damage"}))
	if again, err := r.store.Unreported(); err != nil || len(again) > 0 {
		r.t.Errorf("%s: reported twice: %v, %v", r.name, again, err)
	}
}

// isMerged tells whether Compact puts the rows of a batch into others: usage, and sums of outbounds.
func isMerged(body string) bool {
	return strings.HasPrefix(body, `{"entries":`) || strings.HasPrefix(body, `{"items":`)
}

// checkHistory checks that the newest configuration that can be read is the current one, and that
// clients of an older one are narrowed down.
func (r *recovery) checkHistory() {
	h, err := r.store.History()
	r.must(err)
	same := func(a, b *Config) bool { return a != nil && a.Revision == b.Revision && bytes.Equal(a.Body, b.Body) }
	switch {
	case h.Current == nil && r.harm.single && !r.harm.cut && !r.metaTouched():
		r.t.Errorf("%s: no configuration is left", r.name)
	case h.Current != nil && !same(h.Current, r.history.Current) && !same(h.Current, r.history.Previous):
		r.t.Errorf("%s: the current configuration is %v", r.name, h.Current)
	case (!same(h.Current, r.history.Current) || !same(h.Pending, r.history.Pending)) && !h.Narrow && h.Current != nil:
		r.t.Errorf("%s: a configuration is lost, and an older one lets in whom it will", r.name)
	}
	if h.Admitted != nil && !bytes.Equal(h.Admitted, r.history.Admitted) {
		r.t.Errorf("%s: other clients are admitted", r.name)
	}
	if err := r.store.Commit(noon.Add(39*time.Minute), nil, h.Applied(*r.history.Pending, true), nil); err != nil {
		r.t.Errorf("%s: the configuration can't be overwritten: %v", r.name, err)
	}
	if h, err = r.store.History(); err != nil || !same(h.Current, r.history.Pending) || h.Narrow {
		r.t.Errorf("%s: the configuration was overwritten, and is %v, %v", r.name, h, err)
	}
}

// metaTouched reports whether the damage touched both configurations.
func (r *recovery) metaTouched() bool {
	count := 0
	for _, v := range r.values {
		if v.bucket == bucketMeta && (v.key == string(keyConfig) || v.key == string(keyPrevious)) && r.touched(r.harm, v) {
			count++
		}
	}
	return count == 2
}
