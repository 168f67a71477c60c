package agent

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"nodeagent/coreclient/wire/delta"
)

// elementsInMemory is an elementsFile; with an error it can't be read.
type elementsInMemory struct {
	*bytes.Reader
	err error
}

func (elementsInMemory) Close() error { return nil }

func (e elementsInMemory) ReadAt(into []byte, offset int64) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	return e.Reader.ReadAt(into, offset)
}

// moved returns the table with its list in a file, and the sum of its hashes.
func moved(t interface{ Fatal(args ...any) }, table hashTable) (hashTable, delta.Digest) {
	var text bytes.Buffer
	firsts, err := table.write(&text)
	if err != nil {
		t.Fatal(err)
	}
	file := elementsInMemory{bytes.NewReader(text.Bytes()), nil}
	read, sum, err := readTable(file, table.length)
	if err != nil || len(read.list.firsts) != len(firsts) {
		t.Fatal("the table can't be read: ", err)
	}
	return inFile(file, table.length, firsts), sum
}

// A table is a map, wherever its list is, and also beyond the changes that it keeps beside the list.
func TestHashTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[elementID]delta.Digest{}
		var records []hashRecord
		for id := range elementID(rapid.IntRange(0, 400).Draw(t, "at first")) {
			id *= 1 << 40
			want[id] = delta.Digest{byte(id >> 40)}
			records = append(records, newRecord(id, want[id]))
		}
		for i := range len(records) / 2 {
			records[i], records[len(records)-1-i] = records[len(records)-1-i], records[i]
		}
		table, twice := newHashTable(records)
		if twice {
			t.Fatal("an id is there twice")
		}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			id := elementID(rapid.IntRange(0, 500).Draw(t, "id")) << 40
			switch rapid.IntRange(0, 20).Draw(t, "step") {
			case 0:
				var err error
				if table, err = table.inMemory(); err != nil {
					t.Fatal(err)
				}
			case 1:
				var sum, all delta.Digest
				for _, hash := range want {
					all = all.Plus(hash)
				}
				if table, sum = moved(t, table); sum != all {
					t.Fatalf("the sum is %s, want %s", sum, all)
				}
			case 2, 3, 4, 5, 6, 7:
				table.remove(id)
				delete(want, id)
			default:
				hash := delta.Digest{rapid.Byte().Draw(t, "hash")}
				table.set(id, hash)
				want[id] = hash
			}
		}
		if table.length != len(want) || table.err != nil {
			t.Fatalf("%d entries, want %d (%v)", table.length, len(want), table.err)
		}
		for n := range elementID(510) {
			for _, id := range []elementID{n << 40, n<<40 + 1} {
				hash, is := table.find(id)
				if before, was := want[id]; is != was || is && hash != before {
					t.Fatalf("entry %d is %v %v, want %v %v", id, hash, is, before, was)
				}
			}
		}
	})
	twin := newRecord(1, delta.Digest{})
	if _, twice := newHashTable([]hashRecord{twin, newRecord(2, delta.Digest{}), twin}); !twice {
		t.Error("an id that is there twice is not told")
	}
}

// A table whose file can't be read any more says so.
func TestHashTableWithoutItsFile(t *testing.T) {
	table, _ := newHashTable([]hashRecord{newRecord(1, delta.Digest{1})})
	table, _ = moved(t, table)
	failure := errors.New("the disk is gone")
	table.list.file = elementsInMemory{err: failure}
	if table.find(1); !errors.Is(table.err, failure) {
		t.Errorf("the error is %v, want %v", table.err, failure)
	}
	if _, err := table.inMemory(); !errors.Is(err, failure) {
		t.Errorf("the error is %v, want %v", err, failure)
	}
}
