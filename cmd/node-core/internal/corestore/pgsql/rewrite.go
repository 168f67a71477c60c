package pgsql

import (
	"database/sql/driver"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// rewrite returns the statement for PostgreSQL and its arguments in the order of their numbers.
func rewrite(query string, args []driver.NamedValue) (string, []driver.NamedValue, error) {
	var out strings.Builder
	out.Grow(len(query) + 12*len(args))
	var used []driver.NamedValue
	number := make([]int, len(args)) // that PostgreSQL's text has for an argument; 0 for none yet
	last := 0                        // the greatest number of a parameter so far, as SQLite counts them
	for at := 0; at < len(query); {
		if end := skip(query, at); end > at {
			out.WriteString(query[at:end])
			at = end
			continue
		}
		if word := wordAt(query, at); word != "" {
			if strings.EqualFold(word, "LIKE") && !strings.HasSuffix(strings.TrimRight(query[:at], " \t\n"), "(") { // not of CREATE TABLE (LIKE ...)
				out.WriteByte('I')
			}
			out.WriteString(word)
			at += len(word)
			continue
		}
		if query[at] != '?' {
			out.WriteByte(query[at])
			at++
			continue
		}
		digits := at + 1
		for digits < len(query) && query[digits] >= '0' && query[digits] <= '9' {
			digits++
		}
		index := last + 1
		if digits > at+1 {
			var err error
			if index, err = strconv.Atoi(query[at+1 : digits]); err != nil {
				return "", nil, fmt.Errorf("read parameter %s: %w", query[at:digits], err)
			}
		}
		if index < 1 || index > len(args) {
			return "", nil, fmt.Errorf("the statement has a parameter %d, and %d arguments", index, len(args))
		}
		last, at = max(last, index), digits
		if args[index-1].Value == nil {
			out.WriteString("NULL")
			continue
		}
		value, cast, err := adapt(args[index-1].Value)
		if err != nil {
			return "", nil, fmt.Errorf("parameter %d: %w", index, err)
		}
		if number[index-1] == 0 {
			used = append(used, driver.NamedValue{Ordinal: len(used) + 1, Value: value})
			number[index-1] = len(used)
		}
		out.WriteByte('$')
		out.WriteString(strconv.Itoa(number[index-1]))
		out.WriteString(cast)
	}
	if last == 0 { // it has PostgreSQL's own parameters, or none
		return out.String(), args, nil
	}
	return out.String(), used, nil
}

// skip returns where the text, the quoted name or the comment ends that begins at the place;
// the place itself where none begins.
func skip(query string, at int) int {
	rest := query[at:]
	end := func(from int, mark string) int {
		if i := strings.Index(rest[from:], mark); i >= 0 {
			return at + from + i + len(mark)
		}
		return len(query)
	}
	switch {
	case rest[0] == '\'' || rest[0] == '"': // a doubled quote is the end of one and the start of the next
		return end(1, rest[:1])
	case strings.HasPrefix(rest, "--"):
		return end(2, "\n")
	case strings.HasPrefix(rest, "/*"):
		return end(2, "*/")
	}
	return at
}

// wordAt returns the word that begins at the place; empty where none does.
func wordAt(query string, at int) string {
	end := at
	for end < len(query) {
		c := query[end]
		if c != '_' && c < utf8.RuneSelf && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (end == at || c < '0' || c > '9') {
			break
		}
		end++
	}
	return query[at:end]
}

// adapt returns the value as PostgreSQL takes it, and the cast that names its type.
func adapt(value driver.Value) (adapted driver.Value, cast string, err error) {
	switch v := value.(type) {
	case int64:
		return v, "::bigint", nil
	case []int64:
		return v, "::bigint[]", nil
	case float64:
		return v, "::double precision", nil
	case bool:
		if v {
			return int64(1), "::bigint", nil
		}
		return int64(0), "::bigint", nil
	case string:
		return Text(v), "::text", nil
	case []byte:
		return v, "::bytea", nil
	}
	return nil, "", fmt.Errorf("the store has no column for a %T", value)
}

// Text returns what PostgreSQL stores of a text: it refuses NUL and what is not UTF-8.
func Text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
