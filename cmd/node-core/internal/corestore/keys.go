package corestore

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// keyMaker derives auth keys from the registration code, the attempt and a secret of this
// database. A registration whose answer was lost gets the same key again that way, although
// the database has only the key's hash.
type keyMaker struct{ secret []byte } // 32 random bytes

func (k keyMaker) authKey(code, attempt string) string {
	mac := hmac.New(sha256.New, k.secret)
	mac.Write([]byte("auth-key\x00" + normalizeCode(code) + "\x00" + attempt))
	return "nk1_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// nextKey derives the key that a rotation offers. A node whose answer was lost is offered the
// same one again.
func (k keyMaker) nextKey(nodeID int64, seed string) string {
	mac := hmac.New(sha256.New, k.secret)
	fmt.Fprintf(mac, "next-key\x00%d\x00%s", nodeID, seed)
	return "nk1_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// newCode makes a registration code: 20 characters of base32, which are 100 bits, in groups
// of four.
func newCode() string {
	text := rand.Text()[:20]
	var groups []string
	for i := 0; i < len(text); i += 4 {
		groups = append(groups, text[i:i+4])
	}
	return strings.Join(groups, "-")
}

// normalizeCode makes one text of the ways to type a code: small letters, spaces and hyphens
// do not matter.
func normalizeCode(code string) string {
	return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code))
}
