package nodeapi

import (
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"nodeagent/cmd/node-core/internal/problem"
)

const (
	maxTag = 200 // bytes of a tag and of any other short text
	// maxBytes bounds the bytes of one row. More than a petabyte in a minute comes from a broken
	// counter, and sums of such rows would overflow an int64.
	maxBytes = 1 << 50
)

// fields checks the members of one row and keeps the error of the first one that is wrong.
type fields struct {
	row string // prefix of the members' names, such as "entries[3]."; empty for the body itself
	err error
}

func (f *fields) fail(name, words string) {
	if f.err == nil {
		f.err = problem.InField(f.row+name, words)
	}
}

func (f *fields) number(name string, v *int64, least, most int64) int64 {
	switch {
	case v == nil:
		f.fail(name, "it is missing")
		return 0
	case *v < least || *v > most:
		f.fail(name, fmt.Sprintf("got %d, want %d to %d", *v, least, most))
	}
	return *v
}

func (f *fields) id(name string, v *int64) int64 { return f.number(name, v, 1, 1<<62) }

func (f *fields) bytes(name string, v *int64) int64 { return f.number(name, v, 0, maxBytes) }

func (f *fields) text(name string, v *string) string {
	if v == nil || *v == "" || len(*v) > maxTag {
		f.fail(name, fmt.Sprintf("want 1 to %d bytes", maxTag))
		return ""
	}
	return *v
}

// time reads a time of RFC 3339. Years before 2000 and after 2200 come from broken clocks.
// They are refused, as time.Time can't encode years beyond 9999.
func (f *fields) time(name string, v *string) time.Time {
	if v == nil {
		f.fail(name, "it is missing")
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, *v)
	if t = t.UTC(); err != nil || t.Year() < 2000 || t.Year() > 2200 {
		f.fail(name, fmt.Sprintf("%.40q is no RFC 3339 time such as 2026-01-02T15:04:00Z", *v))
	}
	return t
}

// isIP tells whether a text is an IP address. One with a zone is not: a zone is any text, and
// means nothing on another host.
func isIP(text string) bool {
	address, err := netip.ParseAddr(text)
	return err == nil && address.Zone() == ""
}

// maxRows bounds the rows of a batch. While a batch is stored, the batches of other nodes wait.
const maxRows = 10_000

// checkRows refuses a batch with too many rows. The node sends it in parts.
func checkRows(rows int) error {
	if rows > maxRows {
		return problem.New(http.StatusRequestEntityTooLarge, "too_many_rows", fmt.Sprintf("the body has %d rows, want at most %d; send less at a time", rows, maxRows))
	}
	return nil
}
