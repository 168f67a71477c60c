package rawjson

import (
	"encoding/json"
	"strings"
	"testing"
)

// The text of a configuration is what Xray reads: numbers keep their digits, members of one
// name are one, and another order or white space is the same text.
func TestCanonical(t *testing.T) {
	for _, test := range []struct{ name, raw, want string }{
		{"order and white space", "{ \"b\": [ 2, 1 ],\n\"a\": {\"d\":null,\"c\":true} }", `{"a":{"c":true,"d":null},"b":[2,1]}`},
		{"members of one name", `{"a":1,"b":0,"a":2}`, `{"a":2,"b":0}`},
		{"objects of one name are not merged", `{"x":{"a":{"p":1},"a":{"q":2}}}`, `{"x":{"a":{"q":2}}}`},
		{"large integers", `{"quota":12345678901234567890,"id":-9007199254740993}`, `{"id":-9007199254740993,"quota":12345678901234567890}`},
		{"numbers that are no integers to Xray", `[443.0,1e2,1E+2,-0,0.10,1e400]`, `[443.0,1e2,1E+2,-0,0.10,1e400]`},
		{"escapes", `["\u0061\/","<&>\u2028"]`, `["a/","\u003c\u0026\u003e\u2028"]`},
		{"no UTF-8", "[\"\xff\",\"\\ud800\"]", "[\"\ufffd\",\"\ufffd\"]"},
		{"names that differ in case", `{"Tag":1,"tag":2}`, `{"Tag":1,"tag":2}`},
	} {
		got, err := Canonical(json.RawMessage(test.raw))
		if err != nil || string(got) != test.want {
			t.Errorf("%s: got %s (%v), want %s", test.name, got, err, test.want)
		}
		if again, err := Canonical(got); err != nil || string(again) != string(got) {
			t.Errorf("%s: the canonical text became %s (%v), want %s", test.name, again, err, got)
		}
	}
}

// The canonical text of a part is that part of the whole's: accounts are searched so.
func TestCanonicalParts(t *testing.T) {
	const account = `{"user":"<a>","pass":"\u0062","level":1.0,"level":2}`
	whole, err := Canonical(json.RawMessage(`{"users":[` + account + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	part, err := Canonical(json.RawMessage(account))
	if err != nil || !strings.Contains(string(whole), string(part)) {
		t.Errorf("the part is %s (%v), the whole %s", part, err, whole)
	}
}

func TestCanonicalObject(t *testing.T) {
	for raw, want := range map[string]string{"": "", "null": "", `{"b":1,"a":2}`: `{"a":2,"b":1}`} {
		got, err := CanonicalObject(json.RawMessage(raw))
		if err != nil || string(got) != want {
			t.Errorf("%q: got %s (%v), want %s", raw, got, err, want)
		}
	}
	for _, raw := range []string{"[]", `"text"`, "7", "{"} {
		if got, err := CanonicalObject(json.RawMessage(raw)); err == nil {
			t.Errorf("%q: got %s, want an error", raw, got)
		}
	}
}
