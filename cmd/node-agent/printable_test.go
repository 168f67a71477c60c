package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"nodeagent/agent"
)

// hostileText has what a terminal takes for commands, and a second line.
const hostileText = "a\x1b[2Jb\nnode  forged\u009b31m\u202ec\x07"

// fill puts a text into every string of a value, and one element into every list, map and pointer.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Map:
		key, element := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, text)
		fill(element, text)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, element)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(0, 0)))
			return
		}
		for _, member := range v.Fields() {
			if member.CanSet() {
				fill(member, text)
			}
		}
	case reflect.Int, reflect.Int64, reflect.Uint32, reflect.Float64:
		v.Set(reflect.ValueOf(1).Convert(v.Type()))
	default:
	}
}

// Whatever Core, another host or a client says reaches the terminal as printable text, in one line.
func TestStatusIsPrintable(t *testing.T) {
	var s agent.Status
	fill(reflect.ValueOf(&s).Elem(), hostileText)
	var out strings.Builder
	if err := printStatus(&out, s, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "node  forged") || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("the status prints %q", line)
		}
	}
	if !strings.Contains(out.String(), "[2Jb node") {
		t.Errorf("the texts are missing:\n%s", out.String())
	}
}
