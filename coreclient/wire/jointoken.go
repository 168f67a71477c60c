package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"nodeagent/internal/secret"
)

// joinPrefix names the token's format and version, so that a pasted token of another kind
// is refused with a clear message.
const joinPrefix = "nj1_"

// JoinToken is all that `node-agent register` needs.
type JoinToken struct {
	CoreURL string
	Code    secret.Text // one-time
	// Pin is the lower-case hex SHA-256 of Core's certificate (DER). It is empty where the
	// system's authorities vouch for Core.
	Pin string
}

// joinRecord is a JoinToken as it is encoded.
type joinRecord struct {
	CoreURL string `json:"u"`
	Code    string `json:"c"`
	Pin     string `json:"p,omitempty"`
}

// errNotJoinToken means that the text is not a join token of a known version.
var errNotJoinToken = errors.New("not a join token (it begins with " + joinPrefix + "; copy the whole word that 'node-core node add' printed)")

// Encode returns the token as one word that can be pasted: base64url of JSON, behind
// joinPrefix. The word contains the code, so it is as secret as the code and lives as long.
func (t JoinToken) Encode() string {
	data, err := json.Marshal(joinRecord{CoreURL: t.CoreURL, Code: t.Code.Reveal(), Pin: t.Pin})
	if err != nil {
		panic(err) // three strings always marshal
	}
	return joinPrefix + base64.RawURLEncoding.EncodeToString(data)
}

// ParseJoinToken reads the word that Encode returns.
func ParseJoinToken(s string) (JoinToken, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(s), joinPrefix)
	if !ok {
		return JoinToken{}, errNotJoinToken
	}
	data, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return JoinToken{}, fmt.Errorf("read join token: %w: is it cut short?", err)
	}
	var r joinRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return JoinToken{}, fmt.Errorf("read join token: %w: is it cut short?", err)
	}
	if r.CoreURL == "" || r.Code == "" {
		return JoinToken{}, errors.New("read join token: it names no Core or no code; ask for a new one with 'node-core node add'")
	}
	return JoinToken{CoreURL: r.CoreURL, Code: secret.Text(r.Code), Pin: r.Pin}, nil
}
