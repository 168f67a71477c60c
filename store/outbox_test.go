package store

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

func entries(t interface{ Fatal(...any) }, batch Batch) []wire.UsageEntry {
	if batch.Kind != KindUsage {
		return nil
	}
	var body wire.UsageRequest
	if err := json.Unmarshal(batch.Body, &body); err != nil {
		t.Fatal(err)
	}
	return body.Entries
}

func items(t interface{ Fatal(...any) }, batch Batch) []wire.OutboundUsageItem {
	if batch.Kind != KindOutbound {
		return nil
	}
	var body wire.OutboundUsageRequest
	if err := json.Unmarshal(batch.Body, &body); err != nil {
		t.Fatal(err)
	}
	return body.Items
}

// fill makes one batch of n usage rows.
func fill(t *testing.T, s *Store, n int) {
	t.Helper()
	c := &counts{epoch: "1", values: map[uint32]traffic{}}
	var owners []Owner
	for i := range n {
		owners = append(owners, owner(string(rune('a'+i)), int64(i+1)))
	}
	for i, slot := range assign(t, s, owners...) {
		c.add(slot, uint64(i+1), 1)
	}
	if err := s.Flush(noon, c); err != nil {
		t.Fatal(err)
	}
}

func TestBatchKeepsItsKeyUntilDone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, 3)
	first, _, err := s.Next(KindUsage)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	again, found, err := s.Next(KindUsage)
	if err != nil || !found || again.Key != first.Key || !bytes.Equal(again.Body, first.Body) {
		t.Fatalf("after a crash: %+v, %v, %v; want %+v", again, found, err, first)
	}
}

func TestSplitKeepsEveryRowInOrder(t *testing.T) {
	s := open(t, t.TempDir())
	fill(t, s, 7)
	fill2 := &counts{epoch: "2", values: map[uint32]traffic{}}
	fill2.add(s.Slots()[0], 99, 99)
	if err := s.Flush(noon.Add(time.Hour), fill2); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	var ups []int64
	keys := map[string]bool{}
	for {
		batch, found, err := s.Next(KindUsage)
		if err != nil {
			t.Fatal(err)
		}
		if !found {
			break
		}
		if batch.Rows > 2 {
			if err := s.Split(batch); err != nil {
				t.Fatal(err)
			}
			continue
		}
		sizes = append(sizes, batch.Rows)
		for _, row := range entries(t, batch) {
			ups = append(ups, row.BytesUp)
		}
		if keys[batch.Key] {
			t.Errorf("key %s twice", batch.Key)
		}
		keys[batch.Key] = true
		if err := s.Done(batch); err != nil {
			t.Fatal(err)
		}
	}
	if want := []int64{1, 2, 3, 4, 5, 6, 7, 99}; !reflect.DeepEqual(ups, want) {
		t.Errorf("rows %v in batches of %v, want %v", ups, sizes, want)
	}
}

func TestUsageCodec(t *testing.T) {
	rows := []wire.UsageEntry{
		{UserID: 1, NodeProtocolID: 2, BytesUp: 3, BytesDown: 1 << 62, RecordedAt: noon},
		{UserID: -1, SubscriptionID: new(int64(0)), RecordedAt: noon.Add(-time.Hour)},
	}
	back, err := decodeUsage(encodeUsage(rows))
	if err != nil || !reflect.DeepEqual(back, rows) {
		t.Fatalf("got %+v, %v; want %+v", back, err, rows)
	}
}

func FuzzDecodeUsage(f *testing.F) {
	f.Add(encodeUsage([]wire.UsageEntry{{UserID: 1, SubscriptionID: new(int64(5)), BytesUp: 7, RecordedAt: noon}}))
	f.Add([]byte{1, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, raw []byte) {
		rows, err := decodeUsage(raw)
		if err != nil {
			return
		}
		back, err := decodeUsage(encodeUsage(rows))
		if err != nil || !reflect.DeepEqual(back, rows) {
			t.Fatalf("%+v became %+v, %v", rows, back, err)
		}
	})
}
