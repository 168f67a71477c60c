package corestore

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// keyMaker makes auth keys that can be made again for the attempt that lost its
// answer, though only their hash is stored.
type keyMaker struct{ secret []byte }

func (k keyMaker) authKey(code, attempt string) string {
	mac := hmac.New(sha256.New, k.secret)
	mac.Write([]byte("auth-key\x00" + normalizeCode(code) + "\x00" + attempt))
	return "nk1_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// newCode makes a registration code: 100 bits, in groups that can be read out.
func newCode() string {
	text := rand.Text()[:20]
	var groups []string
	for i := 0; i < len(text); i += 4 {
		groups = append(groups, text[i:i+4])
	}
	return strings.Join(groups, "-")
}

// normalizeCode forgives how a code was typed.
func normalizeCode(code string) string {
	return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code))
}
