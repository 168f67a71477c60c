package agent

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"nodeagent/coreclient/wire/delta"
)

// hashTable has the hashes of a document's elements: a sorted list, and beside it what changed since it
// was made. The list of a large document is in a file, and takes no memory.
type hashTable struct {
	list    hashList
	changed map[elementID]hashChange
	length  int
	err     error // the first one of the list's file: what was found since may be wrong
}

type hashChange struct {
	hash delta.Digest
	gone bool
}

// hashRecord is an id, big-endian, and the hash that it has.
type hashRecord [recordSize]byte

const (
	idSize     = 8
	recordSize = idSize + sha256.Size
)

func newRecord(id elementID, hash delta.Digest) (r hashRecord) {
	binary.BigEndian.PutUint64(r[:], uint64(id))
	copy(r[idSize:], hash[:])
	return r
}

func (r *hashRecord) id() elementID      { return elementID(binary.BigEndian.Uint64(r[:])) }
func (r *hashRecord) hash() delta.Digest { return delta.Digest(r[idSize:]) }

// hashList is a list of records, sorted by id, in memory or in a file.
type hashList struct {
	records []hashRecord

	file   elementsFile // nil for none: then records has them
	n      int          // in the file
	firsts []elementID  // the first id of each block of the file
	block  []byte       // the block that was read last
	number int          // of that block
}

// elementsFile is a file that the store keeps; *store.Elements is one.
type elementsFile interface {
	io.ReaderAt
	io.Closer
}

// blockRecords is how many records are read together: a page of memory.
const blockRecords = 4096 / recordSize

// Changes become a part of the list once there are mergeAfter, and as many as a part of the list that
// mergeShare names.
const (
	mergeAfter = 4096
	mergeShare = 16
)

// newHashTable takes the records over. twice tells that two of them have one id.
func newHashTable(records []hashRecord) (t hashTable, twice bool) {
	slices.SortFunc(records, func(a, b hashRecord) int { return cmp.Compare(a.id(), b.id()) })
	for i := range records {
		twice = twice || i > 0 && records[i-1].id() == records[i].id()
	}
	return hashTable{list: hashList{records: records}, changed: map[elementID]hashChange{}, length: len(records)}, twice
}

func (t *hashTable) find(id elementID) (hash delta.Digest, is bool) {
	if c, changed := t.changed[id]; changed {
		return c.hash, !c.gone
	}
	hash, is, err := t.list.find(id)
	t.err = cmp.Or(t.err, err)
	return hash, is
}

func (l *hashList) find(id elementID) (hash delta.Digest, is bool, err error) {
	if l.file != nil {
		return l.findInFile(id)
	}
	at, is := slices.BinarySearchFunc(l.records, id, func(r hashRecord, id elementID) int { return cmp.Compare(r.id(), id) })
	if !is {
		return hash, false, nil
	}
	return l.records[at].hash(), true, nil
}

func (l *hashList) findInFile(id elementID) (hash delta.Digest, is bool, err error) {
	number, exact := slices.BinarySearch(l.firsts, id)
	if !exact {
		number--
	}
	if number < 0 {
		return hash, false, nil
	}
	if l.block == nil || l.number != number {
		l.block, l.number = slices.Grow(l.block[:0], blockRecords*recordSize), number
		l.block = l.block[:min(blockRecords, l.n-number*blockRecords)*recordSize]
		if _, err := l.file.ReadAt(l.block, int64(number)*blockRecords*recordSize); err != nil {
			l.block = nil
			return hash, false, err
		}
	}
	var want [idSize]byte
	binary.BigEndian.PutUint64(want[:], uint64(id))
	for low, high := 0, len(l.block)/recordSize; low < high; {
		at := (low + high) / 2
		record := l.block[at*recordSize:][:recordSize]
		switch c := bytes.Compare(record[:idSize], want[:]); {
		case c == 0:
			return delta.Digest(record[idSize:]), true, nil
		case c < 0:
			low = at + 1
		default:
			high = at
		}
	}
	return hash, false, nil
}

// all yields the records in their order.
func (l *hashList) all() iter.Seq2[hashRecord, error] {
	return func(yield func(hashRecord, error) bool) {
		if l.file == nil {
			for _, r := range l.records {
				if !yield(r, nil) {
					return
				}
			}
			return
		}
		chunk := make([]byte, 16*blockRecords*recordSize)
		for at := 0; at < l.n; at += len(chunk) / recordSize {
			chunk = chunk[:min(len(chunk)/recordSize, l.n-at)*recordSize]
			if _, err := l.file.ReadAt(chunk, int64(at)*recordSize); err != nil {
				yield(hashRecord{}, err)
				return
			}
			for record := range slices.Chunk(chunk, recordSize) {
				if !yield(hashRecord(record), nil) {
					return
				}
			}
		}
	}
}

func (t *hashTable) set(id elementID, hash delta.Digest) {
	if _, is := t.find(id); !is {
		t.length++
	}
	t.changed[id] = hashChange{hash: hash}
}

func (t *hashTable) remove(id elementID) {
	if _, is := t.find(id); is {
		t.length--
	}
	t.changed[id] = hashChange{gone: true}
}

// full reports whether the changes, least or more, are to become a part of the list.
func (t *hashTable) full(least int) bool { return len(t.changed) >= max(least, t.length/mergeShare) }

// merged yields the records of the list with the changes.
func (t *hashTable) merged() iter.Seq2[hashRecord, error] {
	return func(yield func(hashRecord, error) bool) {
		ids := slices.Sorted(maps.Keys(t.changed))
		next := func(before func(elementID) bool) (goOn bool) { // yields the changes before an id
			for ; len(ids) > 0 && before(ids[0]); ids = ids[1:] {
				if c := t.changed[ids[0]]; !c.gone && !yield(newRecord(ids[0], c.hash), nil) {
					return false
				}
			}
			return true
		}
		for record, err := range t.list.all() {
			if err != nil {
				yield(record, err)
				return
			}
			id := record.id()
			if !next(func(changed elementID) bool { return changed < id }) {
				return
			}
			if len(ids) > 0 && ids[0] == id {
				continue // the change takes its place
			}
			if !yield(record, nil) {
				return
			}
		}
		next(func(elementID) bool { return true })
	}
}

// inMemory returns a table with the same entries whose list is in memory, with the changes.
func (t *hashTable) inMemory() (hashTable, error) {
	records := make([]hashRecord, 0, t.length)
	for r, err := range t.merged() {
		if err != nil {
			return *t, err
		}
		records = append(records, r)
	}
	return hashTable{list: hashList{records: records}, changed: map[elementID]hashChange{}, length: len(records)}, nil
}

// write writes the records for inFile, and returns the first id of each block.
func (t *hashTable) write(to io.Writer) (firsts []elementID, err error) {
	n := 0
	for r, err := range t.merged() {
		if err != nil {
			return nil, err
		}
		if n%blockRecords == 0 {
			firsts = append(firsts, r.id())
		}
		n++
		if _, err := to.Write(r[:]); err != nil {
			return nil, err
		}
	}
	if n != t.length {
		return nil, fmt.Errorf("there are %d hashes, want %d", n, t.length)
	}
	return firsts, nil
}

// inFile returns the table that write has written, n records.
func inFile(file elementsFile, n int, firsts []elementID) hashTable {
	return hashTable{list: hashList{file: file, n: n, firsts: firsts}, changed: map[elementID]hashChange{}, length: n}
}

var errUnsorted = errors.New("the hashes are not sorted")

// readTable returns the table that write has written, n records, and the sum of all hashes.
func readTable(file elementsFile, n int) (t hashTable, sum delta.Digest, err error) {
	t = inFile(file, n, nil)
	var last elementID
	at := 0
	for r, err := range t.list.all() {
		if err != nil {
			return t, sum, err
		}
		if at > 0 && r.id() <= last {
			return t, sum, errUnsorted
		}
		if at%blockRecords == 0 {
			t.list.firsts = append(t.list.firsts, r.id())
		}
		last, sum = r.id(), sum.Plus(r.hash())
		at++
	}
	return t, sum, nil
}

// close closes the file of the list, if there is one.
func (t *hashTable) close() {
	if t.list.file != nil {
		_ = t.list.file.Close() // it was only read
	}
}
