package traffic

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtls/xray-core/common/buf"
)

// record returns a TLS record with n bytes of content.
func record(kind byte, n int) []byte {
	return append([]byte{kind, 3, 3, byte(n >> 8), byte(n)}, bytes.Repeat([]byte{kind}, n)...)
}

// pieces cuts bytes as reads might return them.
func pieces(random *rand.Rand, stream []byte) []buf.MultiBuffer {
	var all []buf.MultiBuffer
	for len(stream) > 0 {
		n := 1 + random.IntN(min(len(stream), 1+random.IntN(40_000)))
		all = append(all, buf.MergeBytes(nil, stream[:n]))
		stream = stream[n:]
	}
	return all
}

// wholeOf returns whether part is nothing but whole records, and whether they are all
// application data.
func wholeOf(part []byte) (whole, data bool) {
	for data = true; len(part) > 0; {
		n := recordHeader
		if len(part) < n {
			return false, false
		}
		n += int(part[3])<<8 | int(part[4])
		if len(part) < n {
			return false, false
		}
		data = data && part[0] == recordData
		part = part[n:]
	}
	return true, data
}

func flat(mb buf.MultiBuffer) []byte {
	b := make([]byte, mb.Len())
	mb.Copy(b)
	buf.ReleaseMulti(mb)
	return b
}

// However the bytes of a TLS server come, they are passed on in their order. Each part is whole
// records, until one part has been application data alone: the one at which Vision splices.
func TestPartsEndWithRecords(t *testing.T) {
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 1))
		stream := append(record(22, 90+random.IntN(2000)), record(20, 1)...)
		for range 1 + random.IntN(30) {
			kind := byte(recordData)
			if random.IntN(8) == 0 {
				kind = 22
			}
			stream = append(stream, record(kind, 1+random.IntN(recordLongest))...)
		}
		for range 6 { // more than one read
			stream = append(stream, record(recordData, recordLongest)...)
		}
		var w wholeRecords
		var passed []byte
		found := false
		for _, mb := range pieces(random, stream) {
			wasDone := w.done
			part := flat(w.cut(mb, false))
			if w.done {
				part = append(part, flat(w.rest())...)
			}
			if !wasDone && len(part) > 0 && !w.done {
				if whole, data := wholeOf(part); !whole || data {
					t.Fatalf("seed %d: a part of %d bytes: whole records %t, all of application data %t", seed, len(part), whole, data)
				}
			}
			found = found || w.done
			passed = append(passed, part...)
		}
		passed = append(passed, flat(w.cut(nil, true))...)
		if !bytes.Equal(passed, stream) {
			t.Fatalf("seed %d: %d bytes were passed on, which are not the %d that came", seed, len(passed), len(stream))
		}
		if !found {
			t.Fatalf("seed %d: no part was application data alone", seed)
		}
	}
}

// The part at which wholeRecords ends has nothing but whole records of application data: the
// beginning of the next one comes after it.
func TestThePartForVision(t *testing.T) {
	var w wholeRecords
	hello := record(22, 100)
	if part := flat(w.cut(buf.MergeBytes(nil, append(hello, record(recordData, 3000)...)), false)); len(part) != len(hello)+3005 || w.done {
		t.Fatalf("the first part has %d bytes, done %t", len(part), w.done)
	}
	next := append(record(recordData, 16000), record(recordData, 16000)[:7777]...)
	if part := flat(w.cut(buf.MergeBytes(nil, next), false)); len(part) != 16005 || !w.done {
		t.Fatalf("the second part has %d bytes, done %t", len(part), w.done)
	}
	if rest := flat(w.rest()); len(rest) != 7777 {
		t.Fatalf("%d bytes are left", len(rest))
	}
}

// Bytes that are not TLS are passed on as they come.
func TestOtherProtocolsAreNotCut(t *testing.T) {
	for name, first := range map[string][]byte{
		"text": []byte("SSH-2.0-x\r\n"), "a long record": {23, 3, 3, 0x50, 0}, "an empty record": {23, 3, 3, 0, 0}, "another version": {22, 2, 0, 0, 9},
	} {
		var w wholeRecords
		if part := flat(w.cut(buf.MergeBytes(nil, first), false)); !bytes.Equal(part, first) || !w.done {
			t.Errorf("%s: passed % x, done %t", name, part, w.done)
		}
	}
}

// The beginning of a record that comes slowly is held back for a second and no longer.
func TestSlowRecordsAreNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wholeRecords
		slow := record(22, 5000)
		held := 0
		for i := range slow {
			if part := w.cut(buf.MergeBytes(nil, slow[i:i+1]), false); !part.IsEmpty() {
				held = int(part.Len())
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if held != int(heldLongest/(10*time.Millisecond))+2 {
			t.Errorf("%d bytes were held back at 100 a second", held)
		}
	})
}

// While Vision pads, a target that only looks like TLS is not kept waiting for ever, and what
// does not look like it is passed on at once.
func TestNothingIsHeldForEver(t *testing.T) {
	for name, c := range map[string]struct {
		first []byte
		most  time.Duration
	}{
		"one byte":                   {[]byte{0}, heldLongest / 2},
		"text":                       {[]byte("hi"), heldLongest / 2},
		"application data alone":     {record(recordData, 100)[:50], heldLongest / 2},
		"the beginning of a record":  {record(recordHandshake, 100)[:50], 2 * heldLongest},
		"the beginning of a header":  {[]byte{recordHandshake, 3}, 2 * heldLongest},
		"a record and a half of one": {append(record(recordHandshake, 100), 22, 3), 2 * heldLongest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newSpliceRig(t, nil)
			r.stream.inbound.CanSpliceCopy = spliceLater
			r.copy()
			for _, message := range [][]byte{c.first, []byte("more"), []byte("and more")} {
				if _, err := r.target.Write(message); err != nil {
					t.Fatal(err)
				}
				if err := r.client.SetReadDeadline(time.Now().Add(c.most)); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(message))
				if _, err := io.ReadFull(r.client, got); err != nil || !bytes.Equal(got, message) {
					t.Fatalf("of % x came % x: %v", message, got, err)
				}
			}
		})
	}
}
