package corestore

import (
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// A minute is flagged also where only its second part came when its time was far away.
func TestLatePartOfAMinuteIsFlagged(t *testing.T) {
	s := openStore(t)
	entry := wire.UsageEntry{UserID: 1, NodeProtocolID: 1, BytesUp: 1, RecordedAt: time.Now().Add(-2 * farPast).Truncate(time.Minute)}
	if _, err := s.AddUsage(t.Context(), 1, "", []wire.UsageEntry{entry}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.ExecContext(t.Context(), `UPDATE usage SET flagged = 0`); err != nil { // as if it had come in time
		t.Fatal(err)
	}
	if _, err := s.AddUsage(t.Context(), 1, "", []wire.UsageEntry{entry}); err != nil {
		t.Fatal(err)
	}
	if rows, err := s.Usage(t.Context(), 10); err != nil || len(rows) != 1 || rows[0].BytesUp != 2 || !rows[0].Flagged {
		t.Errorf("got %+v, %v, want one row of 2 bytes that is flagged", rows, err)
	}
}
