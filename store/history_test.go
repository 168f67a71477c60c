package store

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// packed is a configuration with the revision in its ETag and its body.
func packed(t *testing.T, revision int64) Config {
	t.Helper()
	p, err := Pack(fmt.Appendf(nil, `{"revision":%d}`, revision))
	if err != nil {
		t.Fatal(err)
	}
	return Config{Revision: revision, ETag: fmt.Sprintf(`"%d"`, revision), Body: p}
}

func body(t *testing.T, p Packed) string {
	t.Helper()
	plain, err := p.Unpack()
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

// line says what a history has, as "current 3, previous 2, given up 4, unconfirmed".
func line(t *testing.T, h History) string {
	t.Helper()
	var parts []string
	for _, c := range []struct {
		name   string
		config *Config
	}{{"current", h.Current}, {"previous", h.Previous}} {
		if c.config == nil {
			continue
		}
		parts = append(parts, fmt.Sprint(c.name, " ", c.config.Revision))
		if want := fmt.Sprintf(`{"revision":%d}`, c.config.Revision); body(t, c.config.Body) != want {
			t.Errorf("%s has the body %s, want %s", c.name, body(t, c.config.Body), want)
		}
		if c.config.ETag == "" {
			parts = append(parts, "no ETag")
		}
	}
	if h.GivenUp != nil {
		parts = append(parts, "given up "+strings.Trim(body(t, h.GivenUp), `{}"revison:`))
	}
	if h.Unconfirmed {
		parts = append(parts, "unconfirmed")
	}
	return strings.Join(parts, ", ")
}

// Each transition, from each history that it is meant for. What comes out is stored and
// read back as it is.
func TestHistory(t *testing.T) {
	one, two, three, four := packed(t, 1), packed(t, 2), packed(t, 3), packed(t, 4)
	first := History{}.Applied(one, true)
	second := first.Applied(two, true)
	back := second.Applied(three, true).RolledBack()
	for _, c := range []struct {
		name string
		h    History
		want string
	}{
		{"nothing yet", History{}, ""},
		{"the first configuration", first, "current 1"},
		{"the first that comes while the worker crashes", History{}.Applied(one, false), "current 1"},
		{"the next one", second, "current 2, previous 1"},
		{"the same one again", second.Applied(two, true), "current 2, previous 1"},
		{"one after it", second.Applied(three, true), "current 3, previous 2"},
		{"one after a bad one", second.Applied(three, false), "current 3, previous 1"},
		{"Core goes back to the previous one", second.Applied(one, true), "current 1"},
		{"Core goes back from a bad one", second.Applied(one, false), "current 1, previous 1"},
		{"a rollback", second.RolledBack(), "current 1, given up 2"},
		{"a rollback over a bad one that never ran well", second.Applied(three, false).RolledBack(), "current 1, given up 3"},
		{"the next one after a rollback", back.Applied(four, true), "current 4, previous 2"},
		{"registered anew", second.RegisteredAnew(), "current 2, no ETag, unconfirmed"},
		{"registered anew after a rollback", back.RegisteredAnew(), "current 2, no ETag, given up 3, unconfirmed"},
		{"registered anew without a configuration", History{}.RegisteredAnew(), ""},
		{"the first after registering anew", second.RegisteredAnew().Applied(two, true), "current 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := line(t, c.h); got != c.want {
				t.Errorf("the history is %q, want %q", got, c.want)
			}
			s := open(t, t.TempDir())
			for _, h := range []History{back.Applied(four, true), c.h} { // over another one
				if err := s.Commit(noon, nil, h, nil); err != nil {
					t.Fatal(err)
				}
			}
			if read, err := s.History(); err != nil || !reflect.DeepEqual(read, c.h) {
				t.Errorf("read back %q, %v; want %q", line(t, read), err, c.want)
			}
		})
	}
}

// The members on disk are those of layout 1, which versions before and after read.
func TestHistoryOnDisk(t *testing.T) {
	type record struct {
		Revision    int64  `json:"revision"`
		ETag        string `json:"etag,omitempty"`
		Body        []byte `json:"body"`
		Newer       []byte `json:"newer,omitempty"`
		Unconfirmed bool   `json:"unconfirmed,omitempty"`
	}
	one, two, three := packed(t, 1), packed(t, 2), packed(t, 3)
	s := open(t, t.TempDir())
	want := History{Current: &one, Previous: &two, GivenUp: three.Body, Unconfirmed: true}
	if err := s.Commit(noon, nil, want, nil); err != nil {
		t.Fatal(err)
	}
	var current, previous record
	err := s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte(bucketMeta))
		if err := json.Unmarshal(meta.Get([]byte("previous")), &previous); err != nil {
			return err
		}
		return json.Unmarshal(meta.Get([]byte("config")), &current)
	})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(current, record{1, one.ETag, one.Body, three.Body, true}) || !reflect.DeepEqual(previous, record{2, two.ETag, two.Body, nil, false}) {
		t.Errorf("on disk are %+v and %+v", current, previous)
	}
	// An earlier version stored all members with the previous configuration too.
	previous.Newer, previous.Unconfirmed = three.Body, true
	if err := s.db.Update(func(tx *bbolt.Tx) error { return putJSON(tx, bucketMeta, keyPrevious, previous) }); err != nil {
		t.Fatal(err)
	}
	if read, err := s.History(); err != nil || !reflect.DeepEqual(read, want) {
		t.Errorf("read %q, %v; want %q", line(t, read), err, line(t, want))
	}
}
