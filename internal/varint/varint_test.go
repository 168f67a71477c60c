package varint

import (
	"testing"

	"pgregory.net/rapid"
)

// Every sequence of values is read as it was written, and what is cut off is not read.
func TestValuesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.OneOf(rapid.Uint64().AsAny(), rapid.Int64().AsAny(), rapid.String().AsAny()), 1, 20).Draw(t, "values")
		var w Writer
		for _, v := range values {
			switch v := v.(type) {
			case uint64:
				w.Number(v)
			case int64:
				w.Signed(v)
			case string:
				w.Text(v)
			}
		}
		same := func(r *Reader) (same bool) {
			same = true
			for _, v := range values {
				var read any
				switch v.(type) {
				case uint64:
					read = r.Number()
				case int64:
					read = r.Signed()
				case string:
					read = r.Text()
				}
				same = same && read == v
			}
			return same
		}
		failed := func(r Reader) bool {
			same(&r)
			return r.Failed
		}
		r := Reader{Numbers: w.Numbers, Texts: string(w.Texts)}
		if !same(&r) || r.Failed || len(r.Numbers)+len(r.Texts) > 0 {
			t.Errorf("%v come back otherwise, and leave %+v", values, r)
		}
		if !failed(Reader{Numbers: w.Numbers[:len(w.Numbers)-1], Texts: string(w.Texts)}) {
			t.Errorf("%v are read from numbers that are cut off", values)
		}
		if len(w.Texts) > 0 {
			if !failed(Reader{Numbers: w.Numbers, Texts: string(w.Texts[:len(w.Texts)-1])}) {
				t.Errorf("%v are read from texts that are cut off", values)
			}
		}
	})
}
