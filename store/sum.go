package store

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	jsonv1 "github.com/go-json-experiment/json/v1"
	"go.etcd.io/bbolt"
)

// Values that are JSON objects end in a member "sum": eight hex digits of a CRC-32C over the name
// of the bucket, a zero byte, the key, a zero byte, and the object without that member. So a value
// that stands under another key or in another bucket does not fit either. Versions before the sums
// ignore the member, and values that they wrote have none.
const (
	sumHead = `,"sum":"`
	sumTail = `"}`
	sumSize = len(sumHead) + 8 + len(sumTail)
	// A value with so many of the bytes of sumHead and sumTail, and so many letters of the
	// member's name, has a sum that is damaged, and is not one without a sum. Another member of
	// three letters at the end of a value, as in `,"tag":"outbound"}`, has fewer.
	sumTraces, sumLetters = 7, 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumOf returns the checksum of a value, which may come in parts.
func sumOf(bucket string, key []byte, value ...[]byte) uint32 {
	head := make([]byte, 0, 64)
	head = append(append(append(head, bucket...), 0), key...)
	crc := crc32.Update(0, castagnoli, append(head, 0))
	for _, part := range value {
		crc = crc32.Update(crc, castagnoli, part)
	}
	return crc
}

// seal adds the sum to a JSON object.
func seal(bucket string, key, object []byte) []byte {
	sum := sumOf(bucket, key, object)
	sealed := append(object[:len(object)-1], sumHead...)
	sealed = hex.AppendEncode(sealed, binary.BigEndian.AppendUint32(nil, sum))
	return append(sealed, sumTail...)
}

var (
	errSum    = errors.New("its checksum is wrong")
	errNoHome = errors.New("its checksum fits no bucket")
)

// checkSum checks the sum of a value. sealed is false for a value that has none, because an
// earlier version wrote it.
func checkSum(bucket string, key, value []byte) (sealed bool, err error) {
	if len(value) <= sumSize {
		return false, nil
	}
	object, end := value[:len(value)-sumSize], value[len(value)-sumSize:]
	head, digits, tail := end[:len(sumHead)], end[len(sumHead):len(sumHead)+8], end[len(sumHead)+8:]
	if same(head, sumHead)+same(tail, sumTail) < sumTraces || same(head[2:5], "sum") < sumLetters {
		return false, nil
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], digits); err != nil || binary.BigEndian.Uint32(sum[:]) != sumOf(bucket, key, object, []byte("}")) {
		return true, errSum
	}
	return true, nil
}

// same counts the bytes that are the same in both.
func same(have []byte, want string) (n int) {
	for i := range have {
		if have[i] == want[i] {
			n++
		}
	}
	return n
}

// decode decodes a JSON value of a bucket. The error is a *damagedError.
func decode(bucket string, key, value []byte, into any) error {
	_, err := checkSum(bucket, key, value)
	if err == nil {
		err = json.Unmarshal(value, into)
	}
	if err != nil {
		return damagedValue(bucket, key, err)
	}
	return nil
}

// encode returns v as JSON, with its sum.
func encode(bucket string, key []byte, v any) ([]byte, error) {
	raw, err := jsonv1.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s %x: %w", bucket, key, err)
	}
	if raw = bytes.TrimSpace(raw); len(raw) < 3 || raw[0] != '{' {
		return nil, fmt.Errorf("encode %s %x: it is no JSON object with members", bucket, key)
	}
	return seal(bucket, key, raw), nil
}

// putJSON stores v as JSON, with its sum.
func putJSON(tx *bbolt.Tx, bucket string, key []byte, v any) error {
	raw, err := encode(bucket, key, v)
	if err != nil {
		return err
	}
	return tx.Bucket([]byte(bucket)).Put(key, raw)
}

// framed returns a value that is no JSON, with its sum (uint32, big endian) behind it.
func framed(bucket string, key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(value), sumOf(bucket, key, value))
}

// unframed undoes framed; false where the sum is wrong.
func unframed(bucket string, key, raw []byte) (value []byte, ok bool) {
	if len(raw) < 4 {
		return nil, false
	}
	value = raw[:len(raw)-4]
	return value, binary.BigEndian.Uint32(raw[len(value):]) == sumOf(bucket, key, value)
}
