package salvage_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"go.etcd.io/bbolt"

	"nodeagent/store/salvage"
)

// pageSize is the page size of the test's files. It is small, so that a small file has branches.
const pageSize = 4096

// content is bucket, key → value.
type content map[[2]string]string

// makeFile makes a bbolt file with buckets of several kinds: empty, inside the root page, of one
// leaf, with branches, and with values that are longer than a page. Its list of free pages is not
// empty.
func makeFile(tb testing.TB) (raw []byte, has content) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "file.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize})
	must(tb, err)
	has = content{}
	for round := range 3 {
		must(tb, db.Update(func(tx *bbolt.Tx) error {
			for name, size := range map[string]struct{ values, bytes int }{
				"empty": {0, 0}, "inline": {3, 20}, "leaf": {20, 100}, "branch": {800, 60}, "large": {6, 9000},
			} {
				b, err := tx.CreateBucketIfNotExists([]byte(name))
				must(tb, err)
				for i := range size.values {
					key, value := fmt.Sprintf("%s-%06d", name, i), fmt.Sprintf("%d-%0*d", round, size.bytes, i)
					has[[2]string{name, key}] = value
					must(tb, b.Put([]byte(key), []byte(value)))
				}
				must(tb, b.SetSequence(uint64(size.values)))
			}
			return nil
		}))
	}
	must(tb, db.Close())
	raw, err = os.ReadFile(path)
	must(tb, err)
	return raw, has
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// read returns what is left of a file. Values of pages without a bucket have the bucket of their
// key. What is read of a file in memory is the same.
func read(tb testing.TB, raw []byte) (content, salvage.Report, error) {
	tb.Helper()
	left, report, err := readFrom(bytes.NewReader(raw), int64(len(raw)))
	again, reportAgain, errAgain := readFrom(salvage.Bytes(raw), int64(len(raw)))
	if !maps.Equal(left, again) || !reflect.DeepEqual(report, reportAgain) || (err == nil) != (errAgain == nil) {
		tb.Errorf("a file in memory: %+v, %d values, %v, want %+v, %d values, %v", reportAgain, len(again), errAgain, report, len(left), err)
	}
	return left, report, err
}

func readFrom(file io.ReaderAt, size int64) (content, salvage.Report, error) {
	left := content{}
	report, err := salvage.Read(file, size, salvage.Visitor{
		Bucket: func([]byte, uint64) error { return nil },
		Value: func(bucket, key, value []byte) error {
			if bucket == nil {
				bucket, _, _ = bytes.Cut(key, []byte("-"))
			}
			left[[2]string{string(bucket), string(key)}] = string(value)
			return nil
		},
	})
	return left, report, err
}

func TestSoundFile(t *testing.T) {
	raw, want := makeFile(t)
	have, report, err := read(t, raw)
	must(t, err)
	if !report.Sound() || !maps.Equal(have, want) {
		t.Errorf("a sound file: %+v, %d values, want %d", report, len(have), len(want))
	}
	if report, err := salvage.Inspect(bytes.NewReader(nil), 0); err != nil || !report.Sound() {
		t.Errorf("an empty file: %+v, %v", report, err)
	}
}

// TestEachPage destroys one page after the other. What is in other pages must be there.
func TestEachPage(t *testing.T) {
	raw, want := makeFile(t)
	inPage := map[int]int{} // how many values have their key in a page
	for at := range want {
		inPage[bytes.LastIndex(raw, []byte(at[1]))/pageSize]++
	}
	for number := range len(raw) / pageSize {
		broken := bytes.Clone(raw)
		clear(broken[number*pageSize:][:pageSize])
		have, report, err := read(t, broken)
		if err != nil {
			t.Fatalf("page %d: %v", number, err)
		}
		if report.SteppedBack {
			continue // all values are of the transaction before
		}
		lost := 0
		for at, value := range want {
			if at[0] == "large" { // the page may be the inside of a value
				continue
			}
			if have[at] != value {
				lost++
			}
		}
		if report.Sound() && lost > 0 {
			t.Errorf("page %d is zeroed, and the file is called sound, without %d of %d values", number, lost, len(want))
		}
		// A page may have copies of keys of an earlier transaction, so that the bound is that
		// of the fullest page.
		if lost > 60 {
			t.Errorf("page %d is zeroed: %d values are lost (%+v)", number, lost, report)
		}
		for at := range have {
			if _, is := want[at]; !is && at[0] != "large" {
				t.Errorf("page %d is zeroed: %q appears", number, at)
			}
		}
	}
}

func TestBothMetaPages(t *testing.T) {
	raw, want := makeFile(t)
	for _, number := range []int{0, 1} {
		broken := bytes.Clone(raw)
		broken[number*pageSize+40] ^= 1
		have, report, err := read(t, broken)
		must(t, err)
		if !report.SteppedBack || len(have) != len(want) {
			t.Errorf("meta page %d is damaged: %+v, %d values", number, report, len(have))
		}
		broken[(1-number)*pageSize+40] ^= 1
		if _, _, err := read(t, broken); !errors.Is(err, salvage.ErrNoMeta) {
			t.Errorf("both meta pages are damaged: %v", err)
		}
	}
}

// TestFlips flips bytes at random. What is called sound must be so for bbolt too, and nothing of
// an earlier transaction may come back.
func TestFlips(t *testing.T) {
	raw, want := makeFile(t)
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 600 {
		broken := bytes.Clone(raw)
		for range 1 + random.IntN(3) {
			at := random.IntN(len(broken)/pageSize)*pageSize + random.IntN([]int{16, 100, pageSize}[random.IntN(3)])
			broken[at] ^= 1 << random.IntN(8)
		}
		if random.IntN(10) == 0 {
			broken = broken[:random.IntN(len(broken))]
		}
		have, report, err := read(t, broken)
		if err != nil {
			continue
		}
		for at, value := range have {
			// A value begins with the number of its transaction. A single flip of '2' gives no '1'.
			if was, is := want[at]; is && !report.SteppedBack && value[0] == '1' && value[1:] == was[1:] {
				t.Fatalf("round %d: %q has its value of an earlier transaction (%+v)", round, at, report)
			}
		}
		if report.Sound() {
			checkWithBolt(t, round, broken)
		}
	}
}

// checkWithBolt checks that bbolt finds no damage either, but for pages that it uses for nothing.
func checkWithBolt(t *testing.T, round int, raw []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.db")
	must(t, os.WriteFile(path, raw, 0o600))
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatalf("round %d: bbolt can't open a sound file: %v", round, err)
	}
	defer func() { must(t, db.Close()) }()
	must(t, db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			if !bytes.Contains([]byte(err.Error()), []byte("unreachable unfreed")) {
				t.Errorf("round %d: bbolt finds in a sound file: %v", round, err)
			}
		}
		return nil
	}))
}

// FuzzRead looks for a file that makes Read panic, run for ever, or return more than there is.
func FuzzRead(f *testing.F) {
	raw, _ := makeFile(f)
	f.Add(raw, uint32(0), uint64(0))
	f.Add(raw[:5*pageSize], uint32(pageSize*2), uint64(1))
	f.Fuzz(func(t *testing.T, raw []byte, at uint32, flip uint64) {
		if len(raw) >= 8 {
			place := raw[int(at)%(len(raw)-7):]
			for i := range 8 {
				place[i] ^= byte(flip >> (8 * i))
			}
		}
		size := 0
		_, _ = salvage.Read(bytes.NewReader(raw), int64(len(raw)), salvage.Visitor{
			Bucket: func(name []byte, _ uint64) error { size += len(name); return nil },
			Value:  func(_, key, value []byte) error { size += len(key) + len(value); return nil },
		})
		// The elements of one page may overlap: each of its bytes belongs to as many as fit.
		if size > len(raw)*(1<<16) {
			t.Errorf("%d bytes of a file of %d bytes", size, len(raw))
		}
	})
}
