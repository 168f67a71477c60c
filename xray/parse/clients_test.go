package parse

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"nodeagent/xray/rawjson"
)

// An id has one of two forms. Out of any other text Xray would make another UUID.
func TestParseUUID(t *testing.T) {
	const plain = "0123456789abcdef0123456789abcdef"
	const grouped = "01234567-89ab-cdef-0123-456789abcdef"
	for _, test := range []struct {
		id   string // JSON
		good bool
	}{
		{`"` + grouped + `"`, true},
		{`"` + plain + `"`, true},
		{`"01234567-89AB-CDEF-0123-456789ABCDEF"`, true},
		{`"0123456789ABCDEF0123456789abcdef"`, true},
		{`"\u00301234567-89ab-cdef-0123-456789abcdef"`, true},
		{`"urn:uuid:` + grouped + `"`, false},
		{`"URN:UUID:` + grouped + `"`, false},
		{`"{` + grouped + `}"`, false},
		{`"[` + grouped + `]"`, false},
		{`"{` + plain + `}"`, false},
		{`" ` + grouped + `"`, false},
		{`"` + grouped + ` "`, false},
		{`"01234567-89ab-cdef-0123-456789abcde"`, false},
		{`"01234567-89ab-cdef-0123-456789abcdefa"`, false},
		{`"01234567-89ab-cdef-0123-456789abcdeg"`, false},
		{`"0123456-789ab-cdef-0123-456789abcdef"`, false},
		{`"01234567-89ab-cdef-0123456789abcdef-"`, false},
		{`"01234567-89ab-cdef-0123-45-789abcdef"`, false},
		{`"01234567-89ab-cdef-01234-56789abcdef"`, false},
		{`"01234567-89ab-cdef-0123456789abcdef"`, false},
		{`"0123456789abcdef0123456789abcde"`, false},
		{`"0123456789abcdef0123456789abcdeg"`, false},
		{`"0123456789abcdef-0123456789abcde"`, false},
		{`"01234567-89ab-cdef-0123-456789abcdéf"`, false},
		{`"alice"`, false},
		{`""`, false},
		{`null`, false},
		{`7`, false},
	} {
		var reader clientReader
		got, err := reader.parseUUID(&rawjson.Member{Name: "id", Value: jsontext.Value(test.id)})
		switch {
		case (err == nil) != test.good:
			t.Errorf("%s: error %v, want one: %v", test.id, err, !test.good)
		case test.good && fmt.Sprintf("%x", got[:]) != plain:
			t.Errorf("%s: got %x", test.id, got)
		}
	}
	if _, err := new(clientReader).parseUUID(nil); err == nil {
		t.Error("a client without id is taken")
	}
}

func TestParseUUIDAllocatesNothing(t *testing.T) {
	m := &rawjson.Member{Name: "id", Value: jsontext.Value(`"01234567-89ab-cdef-0123-456789abcdef"`)}
	var reader clientReader
	if n := testing.AllocsPerRun(100, func() { _, _ = reader.parseUUID(m) }); n != 0 {
		t.Errorf("%g allocations for one id", n)
	}
}

// BenchmarkParseClients reads an inbound of 100,000 clients.
func BenchmarkParseClients(b *testing.B) {
	const clients = 100_000
	var raw bytes.Buffer
	raw.WriteString(`{"inbounds":[{"tag":"in-1","protocol":"vless","port":443,"settings":{"decryption":"none","clients":[`)
	for i := range clients {
		if i > 0 {
			raw.WriteByte(',')
		}
		_, _ = fmt.Fprintf(&raw, `{"id":"00000000-0000-4000-8000-%012x","email":"user%d"}`, i, i)
	}
	raw.WriteString(`]}}],"outbounds":[{"tag":"direct","protocol":"freedom"}]}`)
	everybody := func(string) bool { return true }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Service(json.RawMessage(raw.Bytes()), everybody); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseUUID reads one id.
func BenchmarkParseUUID(b *testing.B) {
	m := &rawjson.Member{Name: "id", Value: jsontext.Value(`"01234567-89ab-cdef-0123-456789abcdef"`)}
	var reader clientReader
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reader.parseUUID(m); err != nil {
			b.Fatal(err)
		}
	}
}
