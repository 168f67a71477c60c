package store

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"nodeagent/coreclient/wire"
)

// minutes queues a row of each of the clients for every minute of a time.
func minutes(t testing.TB, s *Store, from time.Time, n, clients int) {
	t.Helper()
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for m := range n {
			at := from.Add(time.Duration(m) * time.Minute)
			rows := make([]wire.UsageEntry, clients)
			for i := range rows {
				rows[i] = wire.UsageEntry{UserID: int64(1_000_000 + i), SubscriptionID: new(int64(2_000_000 + i)), NodeProtocolID: 7, BytesUp: 1_000_003, BytesDown: 20_000_003, RecordedAt: at}
			}
			if err := enqueue(tx, KindUsage, rand.Text(), at, encodeUsage(rows), len(rows)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCompactCoarsensAndLosesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	const days, clients = 10, 3
	minutes(t, s, noon, days*24*60, clients)
	if trimmed, err := s.Compact(noon.Add(days * 24 * time.Hour)); err != nil || trimmed != nil {
		t.Fatalf("trimmed %v, %v", trimmed, err)
	}
	rows, _ := delivered(t, s)
	var up int64
	byGrain := map[string]int{}
	for _, r := range rows {
		up += r.BytesUp
		switch {
		case r.RecordedAt.Equal(r.RecordedAt.Truncate(24 * time.Hour)):
			byGrain["day"]++
		case r.RecordedAt.Equal(r.RecordedAt.Truncate(time.Hour)):
			byGrain["hour"]++
		default:
			byGrain["minute"]++
		}
	}
	if want := int64(days * 24 * 60 * clients * 1_000_003); up != want {
		t.Errorf("%d bytes up, want %d", up, want)
	}
	// Noon to noon: some three days are days, six are hours, the last is minutes;
	// an hour that begins at midnight counts as a day here.
	if byGrain["day"] > 36 || byGrain["hour"] < 400 || byGrain["hour"] > 550 || byGrain["minute"] < 4200 || byGrain["minute"] > 4400 {
		t.Errorf("rows by grain: %v", byGrain)
	}
}

// A batch that was tried may be Core's already: merged under another key it
// would count twice.
func TestCompactLeavesWhatWasTried(t *testing.T) {
	s := open(t, t.TempDir())
	minutes(t, s, noon, 120, 1)
	tried, _, err := s.Next(KindUsage)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(noon.Add(30 * 24 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	again, _, err := s.Next(KindUsage)
	if err != nil || again.Key != tried.Key || string(again.Body) != string(tried.Body) {
		t.Errorf("the tried batch is %+v, %v; want %+v", again, err, tried)
	}
	if rows, _ := delivered(t, s); len(rows) != 2 {
		t.Errorf("%d rows, want the tried one and a merged one", len(rows))
	}
}

// A batch is made a moment after its last minute: the rows of one hour become one row all the
// same.
func TestCompactGroupsByWhatRowsSay(t *testing.T) {
	s := open(t, t.TempDir())
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for m := range 3 * 60 {
			at := noon.Add(time.Duration(m) * time.Minute)
			rows := []wire.UsageEntry{{UserID: 1, NodeProtocolID: 7, BytesUp: 1, RecordedAt: at}}
			if err := enqueue(tx, KindUsage, rand.Text(), at.Add(time.Minute), encodeUsage(rows), 1); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(noon.Add(2 * 24 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	rows, _ := delivered(t, s)
	for _, row := range rows {
		if row.BytesUp != 60 {
			t.Errorf("a row of %s has %d of 60 minutes", row.RecordedAt, row.BytesUp)
		}
	}
	if len(rows) != 3 {
		t.Errorf("%d rows for three hours", len(rows))
	}
}

// outboundSums empties the queue of outbounds, and returns the bytes up by tag and the number of
// batches.
func outboundSums(t *testing.T, s *Store) (sums map[string]int64, batches int) {
	t.Helper()
	sums = map[string]int64{}
	for {
		batch, found, err := s.Next(KindOutbound)
		if err != nil {
			t.Fatal(err)
		}
		if !found {
			return sums, batches
		}
		batches++
		var body wire.OutboundUsageRequest
		if err := json.Unmarshal(batch.Body, &body); err != nil {
			t.Fatal(err)
		}
		for _, item := range body.Items {
			sums[item.Tag] += item.BytesUp
		}
		if err := s.Done(batch); err != nil {
			t.Fatal(err)
		}
	}
}

// The sums of outbounds that wait for Core become one batch. One that was sent stays as it is, and
// so do those of the last hour.
func TestCompactMergesOutbounds(t *testing.T) {
	s := open(t, t.TempDir())
	const minutesAway = 5000
	queue := func(from, n int) {
		if err := s.db.Update(func(tx *bbolt.Tx) error {
			for m := from; m < from+n; m++ {
				items := []wire.OutboundUsageItem{{Tag: "direct", BytesUp: 1}, {Tag: fmt.Sprint("out-", m%10), BytesUp: 2}}
				if err := enqueueJSON(tx, KindOutbound, rand.Text(), noon.Add(time.Duration(m)*time.Minute), wire.OutboundUsageRequest{Items: items}, 2); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	queue(0, minutesAway)
	tried, _, err := s.Next(KindOutbound)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Compact(noon.Add(minutesAway * time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if again, _, err := s.Next(KindOutbound); err != nil || again.Key != tried.Key {
		t.Errorf("the tried batch is %+v, %v", again, err)
	}
	sums, batches := outboundSums(t, s)
	if sums["direct"] != minutesAway || sums["out-3"] != 2*minutesAway/10 {
		t.Errorf("sums %v", sums)
	}
	if want := 1 + 1 + 60; batches != want {
		t.Errorf("%d batches, want %d: the tried one, a merged one and those of the last hour", batches, want)
	}
}

// The courier sends while what waits is merged: each byte comes once.
func TestCompactBesideDelivery(t *testing.T) {
	for range 5 {
		s := open(t, t.TempDir())
		minutes(t, s, noon, 300, 1)
		merged := make(chan error)
		go func() {
			_, err := s.Compact(noon.Add(30 * 24 * time.Hour))
			merged <- err
		}()
		rows, _ := delivered(t, s)
		if err := <-merged; err != nil {
			t.Fatal(err)
		}
		rest, _ := delivered(t, s)
		var up int64
		for _, r := range append(rows, rest...) {
			up += r.BytesUp
		}
		if want := int64(300 * 1_000_003); up != want {
			t.Fatalf("%d bytes came, want %d", up, want)
		}
	}
}

func TestCompactKeepsTheSum(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t, t.TempDir())
		now, total := noon, int64(0)
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(-60, 3000).Draw(rt, "minutes")) * time.Minute)
			if rapid.Bool().Draw(rt, "compact") {
				if _, err := s.Compact(now); err != nil {
					rt.Fatal(err)
				}
				continue
			}
			minutes(t, s, now, 2, 2)
			total += 4 * 1_000_003
		}
		rows, _ := delivered(t, s)
		for _, r := range rows {
			total -= r.BytesUp
		}
		if total != 0 {
			rt.Fatalf("%d bytes differ", total)
		}
	})
}

// A month without Core at 10,000 active clients stays under a gigabyte: measured
// with a hundredth of the clients.
func TestAMonthAwayStaysSmall(t *testing.T) {
	s := open(t, t.TempDir())
	const clients, share = 100, 100
	for day := range 31 {
		at := noon.Add(time.Duration(day) * 24 * time.Hour)
		minutes(t, s, at, 24*60, clients)
		if _, err := s.Compact(at.Add(24 * time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	used, err := s.used()
	if err != nil {
		t.Fatal(err)
	}
	if month := used * share; month > maxUsed {
		t.Errorf("a month would need %d bytes, the bound is %d", month, maxUsed)
	}
}

func TestAtTheBoundNoByteIsLost(t *testing.T) {
	s := open(t, t.TempDir())
	s.maxUsed = 1
	minutes(t, s, noon, 24*60, 2)
	var events []SessionEvent
	for i := range 4 {
		events = append(events, SessionEvent{SessionKey: SessionKey{Slot: uint32(i)}, Event: wire.SessionEvent{EventType: wire.Online, UserID: int64(i)}})
		if err := s.Sessions(noon, events[i:]); err != nil {
			t.Fatal(err)
		}
	}
	trimmed, err := s.Compact(noon.Add(48 * time.Hour))
	if err != nil || trimmed == nil || trimmed.EventsDropped != 2 {
		t.Fatalf("trimmed %+v, %v", trimmed, err)
	}
	var up int64
	rows, _ := delivered(t, s)
	for _, r := range rows {
		up += r.BytesUp
	}
	if up != 2*24*60*1_000_003 {
		t.Errorf("%d bytes are left", up)
	}
}

func TestAsideIsAnOperatorsToDecide(t *testing.T) {
	s := open(t, t.TempDir())
	fill(t, s, 2)
	batch, _, err := s.Next(KindUsage)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetAside(noon, batch, "Core says no"); err != nil {
		t.Fatal(err)
	}
	list, err := s.ListAside()
	if err != nil || len(list) != 1 || list[0].Reason != "Core says no" || list[0].Rows != 2 || list[0].Kind != KindUsage {
		t.Fatalf("list %+v, %v", list, err)
	}
	if body, err := s.ShowAside(list[0].ID); err != nil || string(body) != string(batch.Body) {
		t.Errorf("shows %s, %v", body, err)
	}
	if err := s.RetryAside(list[0].ID); err != nil {
		t.Fatal(err)
	}
	again, found, err := s.Next(KindUsage)
	if err != nil || !found || again.Key != batch.Key {
		t.Errorf("after retry: %+v, %v, %v", again, found, err)
	}
	if err := s.SetAside(noon, again, "no again"); err != nil {
		t.Fatal(err)
	}
	list, err = s.ListAside()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DropAside(list[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := s.DropAside(list[0].ID); err == nil {
		t.Error("a batch was dropped twice")
	}
}

func TestFreshGoesBeforeBacklog(t *testing.T) {
	s := open(t, t.TempDir())
	minutes(t, s, noon, 100, 1)
	fresh, found, err := s.NextSince(KindUsage, noon.Add(98*time.Minute))
	if err != nil || !found || !fresh.CreatedAt.Equal(noon.Add(98*time.Minute)) {
		t.Errorf("fresh %+v, %v, %v", fresh, found, err)
	}
	if _, found, err := s.NextSince(KindUsage, noon.Add(time.Hour*24)); found || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
}

// listed are counters of epoch 1, by slot.
type listed []traffic

func (listed) Epoch() string { return "1" }

func (l listed) Read(slot uint32) (up, down uint64) { return l[slot].up, l[slot].down }

// BenchmarkCollect reads 100,000 clients of which 10,000 moved bytes, in one
// transaction with one fsync. The bound is 50 ms of CPU. Beside it stands a bare
// transaction of the same pages.
func BenchmarkCollect(b *testing.B) {
	s := open(b, b.TempDir())
	c := &counts{epoch: "1", values: map[uint32]traffic{}}
	var owners []Owner
	for i := range 100_000 {
		owners = append(owners, owner(fmt.Sprint("client-", i), int64(i+1)))
	}
	slots := assign(b, s, owners...)
	now := noon
	if err := s.Collect(now, c); err != nil {
		b.Fatal(err)
	}
	values := make(listed, len(slots))
	for b.Loop() {
		for i := 0; i < len(values); i += 10 {
			values[i].add(1000, 2000)
		}
		if err := s.Collect(now, values); err != nil {
			b.Fatal(err)
		}
	}
}
