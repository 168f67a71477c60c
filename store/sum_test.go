package store

import (
	"bytes"
	"testing"
)

// A value that an earlier version wrote has no sum, whatever it ends with. A value with a sum is
// refused wherever one of its bits is wrong, and under another key or in another bucket.
func TestSums(t *testing.T) {
	for _, text := range []string{
		`{"source":"xray","tag":"outbound"}`, `{"source":"xray","tag":"in","key":"00112233"}`, `{"a":1}`, `{"reason":"x","sum":1}`,
		`{"source":"xray","tag":"vless-8443","key":"client-1","attribution":{"userId":1,"nodeProtocolId":7,"protocol":"vless"}}`,
	} {
		if sealed, err := checkSum(bucketSlots, []byte("key"), []byte(text)); sealed || err != nil {
			t.Errorf("%s: sealed %v, %v", text, sealed, err)
		}
		value := seal(bucketSlots, []byte("key"), []byte(text))
		if sealed, err := checkSum(bucketSlots, []byte("key"), value); !sealed || err != nil {
			t.Errorf("%s: sealed %v, %v", value, sealed, err)
		}
		for at := range value {
			for bit := range 8 {
				flipped := bytes.Clone(value)
				flipped[at] ^= 1 << bit
				// A flip in the sum's own frame leaves the sum and the object as they were.
				frame := at >= len(text)-1 && (at < len(value)-len(sumTail)-8 || at >= len(value)-len(sumTail))
				if sealed, err := checkSum(bucketSlots, []byte("key"), flipped); !sealed || err == nil && !frame && flipped[at]|0x20 != value[at]|0x20 {
					t.Errorf("%s: sealed %v, %v", flipped, sealed, err)
				}
			}
		}
		if _, err := checkSum(bucketSlots, []byte("kez"), value); err == nil {
			t.Errorf("%s fits another key", value)
		}
		if _, err := checkSum(bucketPages, []byte("key"), value); err == nil {
			t.Errorf("%s fits another bucket", value)
		}
	}
}
