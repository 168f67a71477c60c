package agent

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// Whatever a document says: if it has a parsed form, that is read as the document is.
func TestParsedFormIsTheDocument(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for range rapid.IntRange(0, 12).Draw(t, "edits") {
			w.edit(t)
		}
		d, _, err := parseConfig(w.body())
		if err != nil {
			t.Fatal(err)
		}
		hash := []byte("hash")
		data, ok := d.parsedForm(hash)
		if !ok {
			return
		}
		again, hashAgain, err := readParsed(data)
		if err != nil || string(hashAgain) != string(hash) {
			t.Fatalf("read %q: %v", hashAgain, err)
		}
		d.unreadable, d.mtprotoUnreadable, again.unreadable, again.mtprotoUnreadable = nil, nil, nil, nil
		if !reflect.DeepEqual(d, again) {
			t.Fatalf("got:\n%+v\nwant:\n%+v", again, d)
		}
		for n := range len(data) { // what is cut off is refused and does not panic
			if _, _, err := readParsed(data[:n]); err == nil {
				t.Fatalf("%d of %d bytes were read", n, len(data))
			}
		}
	})
}

// FuzzReadParsed reads what is damaged: the checksum of the store finds most of it before.
func FuzzReadParsed(f *testing.F) {
	w := newWorld()
	w.mtproto["a"] = 1
	d, _, err := parseConfig(w.body())
	if err != nil {
		f.Fatal(err)
	}
	data, _ := d.parsedForm(make([]byte, 32))
	f.Add(data)
	f.Fuzz(func(_ *testing.T, data []byte) { _, _, _ = readParsed(data) })
}
