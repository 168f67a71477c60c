package agent

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/store"
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

// The parsed form of another build is not decoded.
func TestParsedFormOfAnotherBuildIsNotRead(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	d, _, err := parseConfig(newWorld().body())
	if err != nil {
		t.Fatal(err)
	}
	data, ok := d.parsedForm(make([]byte, 32))
	if !ok {
		t.Fatal("the document has no parsed form")
	}
	key := store.ParsedKeyOf("one", store.Packed("body"))
	if err := db.SetParsed(key, data); err != nil {
		t.Fatal(err)
	}
	ahead := ReadAhead(dir, func() string { return "one" })
	<-ahead.read
	if ahead.err != nil || ahead.key != key || ahead.kept.clients() != d.clients() {
		t.Errorf("its own build reads %d clients, want %d: %v", ahead.kept.clients(), d.clients(), ahead.err)
	}
	ahead = ReadAhead(dir, func() string { return "two" })
	<-ahead.read
	if ahead.err == nil || ahead.key != (store.ParsedKey{}) || !reflect.DeepEqual(ahead.kept, keptDocument{}) {
		t.Errorf("another build reads %d clients: %v", ahead.kept.clients(), ahead.err)
	}
}

// A panic in the reading of the parsed form is an error, after which the document is parsed. Whether it is
// used or not, the daemon keeps no second copy of the configuration.
func TestRestoreWithoutTheParsedForm(t *testing.T) {
	w := newWorld()
	body, err := store.Pack(w.body())
	if err != nil {
		t.Fatal(err)
	}
	panics := func([]byte) (desired, []byte, error) { panic("a number that stands for something else") }
	for _, test := range []struct {
		name    string
		current *store.Config
		close   bool // so that the history can't be read
		clients int
	}{
		{"a document", &store.Config{Revision: w.revision, ETag: `"1"`, Body: body}, false, 10},
		{"no document", nil, false, 0},
		{"no history", nil, true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			db, err := store.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if test.current != nil {
				if err := db.Commit(time.Now(), nil, store.History{Current: test.current}, nil); err != nil {
					t.Fatal(err)
				}
			}
			n := newNode(t, db)
			ahead := &Ahead{read: make(chan struct{}), key: store.ParsedKeyOf("one", body)}
			ahead.kept.desired, ahead.kept.hash, ahead.err = readWith(panics, nil)
			close(ahead.read)
			if !errors.Is(ahead.err, errParsed) {
				t.Fatalf("the panic led to the error %v", ahead.err)
			}
			n.ahead, n.build = ahead, "one"
			if test.close {
				db.Close()
			}
			n.restore(context.Background())
			if n.ahead != nil {
				t.Error("the parsed form is kept")
			}
			if got := n.running.clients(); got != test.clients {
				t.Errorf("%d clients run, want %d", got, test.clients)
			}
		})
	}
}
