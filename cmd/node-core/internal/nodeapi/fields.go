package nodeapi

import (
	"fmt"
	"net/netip"
	"time"

	"nodeagent/cmd/node-core/internal/problem"
)

const (
	maxTag = 200 // bytes of a tag, and of any other short text
	// maxBytes bounds one row: a petabyte in a minute is a broken counter, and
	// sums of such rows would overflow.
	maxBytes = 1 << 50
)

// fields checks the members of one row and remembers the first that is wrong.
type fields struct {
	row string // as entries[3].
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
		f.fail(name, fmt.Sprintf("%d is not from %d to %d", *v, least, most))
	}
	return *v
}

func (f *fields) id(name string, v *int64) int64 { return f.number(name, v, 1, 1<<62) }

func (f *fields) bytes(name string, v *int64) int64 { return f.number(name, v, 0, maxBytes) }

func (f *fields) text(name string, v *string) string {
	if v == nil || *v == "" || len(*v) > maxTag {
		f.fail(name, fmt.Sprintf("want 1 to %d characters", maxTag))
		return ""
	}
	return *v
}

// time reads RFC 3339. Years that no clock shows are refused: they could not be
// written again.
func (f *fields) time(name string, v *string) time.Time {
	if v == nil {
		f.fail(name, "it is missing")
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, *v)
	if t = t.UTC(); err != nil || t.Year() < 2000 || t.Year() > 2200 {
		f.fail(name, fmt.Sprintf("%.40q is no time of RFC 3339, as 2026-01-02T15:04:00Z", *v))
	}
	return t
}

func isIP(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}
