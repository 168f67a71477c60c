package adminapi

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// during calls a function at the first write.
type during struct {
	strings.Builder
	once func()
}

func (d *during) Write(p []byte) (int, error) {
	if d.once != nil {
		d.once()
		d.once = nil
	}
	return d.Builder.Write(p)
}

// The totals of a report are the sums of its rows, also where usage comes while it is read. Those of a report
// that is cut short are of all usage.
func TestTotalsAreThoseOfTheRows(t *testing.T) {
	s := newServer(t)
	begin := time.Now().UTC().AddDate(0, 0, -20).Truncate(24 * time.Hour)
	use := func(key string, day int, users int64) {
		var entries []wire.UsageEntry
		for user := range users {
			entries = append(entries, wire.UsageEntry{UserID: 1 + user, NodeProtocolID: 1, BytesUp: 5, BytesDown: 7, RecordedAt: begin.AddDate(0, 0, day)})
		}
		if _, err := s.store.AddUsage(t.Context(), 1, key, entries); err != nil {
			t.Fatal(err)
		}
	}
	for day := range 10 {
		use("", day, 50)
	}
	q := corestore.ReportQuery{By: "user", Step: "day", Location: time.UTC}
	for name, limit := range map[string]int{"whole": 10_000, "truncated": 300} {
		out := &during{once: func() { use(name, 12, 1) }}
		if err := writeReport(t.Context(), s.store, q, limit, out); err != nil {
			t.Fatal(err)
		}
		var report coreapi.UsageReport
		if err := json.Unmarshal([]byte(out.String()), &report); err != nil {
			t.Fatal(err)
		}
		var sums coreapi.Traffic
		for _, row := range report.Rows {
			sums.BytesUp, sums.BytesDown = sums.BytesUp+row.BytesUp, sums.BytesDown+row.BytesDown
		}
		if out.once != nil {
			t.Errorf("%s: it was written at once", name)
		}
		if report.Truncated != (len(report.Rows) == limit) || !report.Truncated && report.Totals != sums || report.Truncated && report.Totals.BytesUp < 501*5 {
			t.Errorf("%s: totals %+v, and the %d rows have %+v", name, report.Totals, len(report.Rows), sums)
		}
	}
}
