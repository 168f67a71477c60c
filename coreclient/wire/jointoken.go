package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// joinPrefix names the token's format and version, so that a pasted token of
// another kind is refused with a clear word.
const joinPrefix = "nj1_"

// JoinToken is all that `node-agent register` needs, in one pasteable word:
// base64url of JSON behind joinPrefix. It holds the one-time code, so it is as
// secret as the code and as short-lived.
type JoinToken struct {
	CoreURL string `json:"u"`
	Code    string `json:"c"`
	// Pin is the lower-case hex SHA-256 of Core's certificate (DER), empty
	// where the system's authorities vouch for Core.
	Pin string `json:"p,omitempty"`
}

// ErrNotJoinToken means that the text is no join token of a known version.
var ErrNotJoinToken = errors.New("not a join token (it begins with " + joinPrefix + "; copy the whole word that 'node-core node add' printed)")

// String returns the pasteable form. It contains the code: never log it.
func (t JoinToken) String() string {
	data, err := json.Marshal(t)
	if err != nil {
		panic(err) // three strings always marshal
	}
	return joinPrefix + base64.RawURLEncoding.EncodeToString(data)
}

// ParseJoinToken reads the form that String returns.
func ParseJoinToken(s string) (JoinToken, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(s), joinPrefix)
	if !ok {
		return JoinToken{}, ErrNotJoinToken
	}
	data, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return JoinToken{}, fmt.Errorf("read join token: %w: is it cut short?", err)
	}
	var token JoinToken
	if err := json.Unmarshal(data, &token); err != nil {
		return JoinToken{}, fmt.Errorf("read join token: %w: is it cut short?", err)
	}
	if token.CoreURL == "" || token.Code == "" {
		return JoinToken{}, errors.New("read join token: it names no Core or no code; ask for a new one with 'node-core node add'")
	}
	return token, nil
}
