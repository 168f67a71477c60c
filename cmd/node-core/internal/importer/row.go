package importer

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// row is a row of a panel's database. SQLite lets a column have a value of every type: a value that
// can't be taken for what the column should have is noted in err.
type row struct {
	table  string
	number int
	values map[string]any
	err    error
}

func (r *row) wrong(column, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("table %s, row %d: %s is %q, want %s", r.table, r.number, column, printable(fmt.Sprint(r.values[column]), 40), want)
	}
}

// text returns a text, "" for NULL and for a column that is not there.
func (r *row) text(column string) string {
	switch v := r.values[column].(type) {
	case nil:
		return ""
	case string:
		return strings.ToValidUTF8(v, "\uFFFD")
	case int64:
		return strconv.FormatInt(v, 10)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	}
	r.wrong(column, "a text")
	return ""
}

// number returns a whole number, 0 for NULL, an empty text and a column that is not there.
func (r *row) number64(column string) int64 {
	switch v := r.values[column].(type) {
	case nil:
		return 0
	case int64:
		return v
	case bool:
		if v {
			return 1
		}
		return 0
	case float64:
		if v >= math.MinInt64 && v < math.MaxInt64 {
			return int64(v)
		}
	case string:
		if v == "" {
			return 0
		}
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n
		}
	}
	r.wrong(column, "a whole number")
	return 0
}

// count returns a number that is not below zero.
func (r *row) count(column string) int64 { return max(0, r.number64(column)) }

// flag returns a truth value, and other for NULL and a column that is not there.
func (r *row) flag(column string, other bool) bool {
	switch v := r.values[column].(type) {
	case nil:
		return other
	case string:
		if on, err := strconv.ParseBool(v); err == nil {
			return on
		}
	}
	return r.number64(column) != 0
}

// timeForms are how SQLAlchemy and others store a time.
var timeForms = []string{"2006-01-02 15:04:05.999999999", time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02"}

// time returns a time, nil for none.
func (r *row) time(column string) *time.Time {
	switch v := r.values[column].(type) {
	case nil:
		return nil
	case time.Time:
		return sensible(v)
	case string:
		if v == "" {
			return nil
		}
		for _, form := range timeForms {
			if t, err := time.Parse(form, v); err == nil {
				return sensible(t)
			}
		}
	}
	r.wrong(column, "a time")
	return nil
}

// sensible returns a time that JSON can say, and nil for any other.
func sensible(t time.Time) *time.Time {
	if t = t.UTC(); t.Year() < 1970 || t.Year() > 9999 {
		return nil
	}
	return &t
}

// printable returns a text of a panel as a terminal may get it, cut to so many bytes.
func printable(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return cut(text, most)
}

// cut returns the first bytes of a text, whole characters.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && text[most]&0xC0 == 0x80 {
		most--
	}
	return text[:most]
}
