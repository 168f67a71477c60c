package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"go.etcd.io/bbolt"
)

// keyBatchKeys is where the meta bucket has the batchKeys.
var keyBatchKeys = []byte("batchKeys")

// batchKeys makes the Idempotency-Keys of the batches that collections make. Two daemons on
// copies of one state file make the same keys for the bytes that both of them have from before
// the copy was made: Core then counts those once. Each daemon begins a seed of its own with
// its first Flush, so that what it counts by itself has keys of its own.
type batchKeys struct {
	Seed string       `json:"seed"`
	Made map[Kind]int `json:"made"` // how many keys of a kind were made of the seed
}

// readBatchKeys returns the stored keys. A file without them, or with some that cannot be
// read, gets a new seed.
func readBatchKeys(tx *bbolt.Tx) batchKeys {
	var k batchKeys
	raw := tx.Bucket([]byte(bucketMeta)).Get(keyBatchKeys)
	if raw == nil || decode(bucketMeta, keyBatchKeys, raw, &k) != nil || k.Seed == "" {
		return newBatchKeys()
	}
	if k.Made == nil {
		k.Made = map[Kind]int{}
	}
	return k
}

func newBatchKeys() batchKeys { return batchKeys{Seed: rand.Text(), Made: map[Kind]int{}} }

// startBatchKeys stores a first seed in a new file, or in one of an earlier version.
func startBatchKeys(tx *bbolt.Tx) error {
	if tx.Bucket([]byte(bucketMeta)).Get(keyBatchKeys) != nil {
		return nil
	}
	return putJSON(tx, bucketMeta, keyBatchKeys, newBatchKeys())
}

// next returns the next key of a kind.
func (k *batchKeys) next(kind Kind) string {
	k.Made[kind]++
	return derivedKey(k.Seed, string(kind), fmt.Sprint(k.Made[kind]))
}

// derivedKey makes an Idempotency-Key of texts, of 26 characters as rand.Text makes them. It
// gives the same key for the same texts.
func derivedKey(texts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return base32.StdEncoding.EncodeToString(sum[:])[:26]
}
