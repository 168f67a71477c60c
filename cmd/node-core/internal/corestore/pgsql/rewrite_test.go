package pgsql

import (
	"database/sql/driver"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRewrite(t *testing.T) {
	for _, c := range []struct {
		query string
		args  []driver.Value
		want  string
		left  []driver.Value
	}{
		{`SELECT 1`, nil, `SELECT 1`, nil},
		{`SELECT $1`, []driver.Value{int64(7)}, `SELECT $1`, []driver.Value{int64(7)}}, // PostgreSQL's own words
		{`x = ? AND y = ?`, []driver.Value{int64(1), "a"}, `x = $1::bigint AND y = $2::text`, []driver.Value{int64(1), "a"}},
		{`?2 ?1 ?2`, []driver.Value{"a", "b"}, `$1::text $2::text $1::text`, []driver.Value{"b", "a"}},
		{`?1 ? ?`, []driver.Value{"a", "b", "c"}, `$1::text $2::text $3::text`, []driver.Value{"a", "b", "c"}},
		{`?3, ?`, []driver.Value{"a", "b", "c", "d"}, `$1::text, $2::text`, []driver.Value{"c", "d"}},
		{`?, ?, ?`, []driver.Value{nil, []byte{1}, nil}, `NULL, $1::bytea, NULL`, []driver.Value{[]byte{1}}},
		{`?, ?, ?`, []driver.Value{true, false, 1.5}, `$1::bigint, $2::bigint, $3::double precision`, []driver.Value{int64(1), int64(0), 1.5}},
		{`'?' "?" '''?' -- ?
			/* ? */ ?`, []driver.Value{"a"}, `'?' "?" '''?' -- ?
			/* ? */ $1::text`, []driver.Value{"a"}},
		{`name LIKE ? or like_it like 'LIKE'`, []driver.Value{"a"}, `name ILIKE $1::text or like_it Ilike 'LIKE'`, []driver.Value{"a"}},
		{`CREATE TABLE a ( LIKE b)`, nil, `CREATE TABLE a ( LIKE b)`, nil},
		{`= ANY (?)`, []driver.Value{[]int64{1}}, `= ANY ($1::bigint[])`, []driver.Value{[]int64{1}}},
		{`?`, []driver.Value{"a\x00b\xff"}, `$1::text`, []driver.Value{"a\uFFFDb\uFFFD"}},
		{`'open ?`, nil, `'open ?`, nil},
	} {
		var args []driver.NamedValue
		for i, v := range c.args {
			args = append(args, driver.NamedValue{Ordinal: i + 1, Value: v})
		}
		got, left, err := rewrite(c.query, args)
		var values []driver.Value
		for _, v := range left {
			values = append(values, v.Value)
		}
		if err != nil || got != c.want || !reflect.DeepEqual(values, c.left) {
			t.Errorf("%s: got %s with %v (%v), want %s with %v", c.query, got, values, err, c.want, c.left)
		}
	}
	for _, query := range []string{`?`, `?0`, `?99999999999999999999`, `?2`} {
		if _, _, err := rewrite(query, nil); err == nil {
			t.Errorf("%s without arguments: no error", query)
		}
	}
}

// Whatever a text is, PostgreSQL takes it, and the statement stays one.
func FuzzRewrite(f *testing.F) {
	f.Add(`SELECT '?', "a?", ? -- ?`, "x\x00")
	f.Fuzz(func(t *testing.T, query, value string) {
		args := []driver.NamedValue{{Ordinal: 1, Value: value}}
		got, left, err := rewrite(query, args)
		if err != nil {
			return
		}
		for _, arg := range left {
			if s := arg.Value.(string); !strings.Contains(query, "?") && s == value {
				continue
			} else if strings.Contains(got, "$1::text") && (!utf8.ValidString(s) || strings.Contains(s, "\x00")) {
				t.Errorf("%q is sent", s)
			}
		}
	})
}
