package nodeapi

import (
	"fmt"
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

func isIP(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}
