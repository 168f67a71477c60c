package worker

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"nodeagent/xray/state"
)

// secretMembers hold what must not be in an error, by their lower-case names:
// xray-core quotes what it does not like.
var secretMembers = map[string]bool{
	"privatekey": true, "secretkey": true, "presharedkey": true, "password": true, "pass": true,
	"auth": true, "id": true, "key": true, "mldsa65seed": true, "decryption": true, "echserverkeys": true, "seed": true,
	"authorization": true, "cookie": true, "user": true,
	"value": true, // of the mask mkcp-legacy
	"url":   true, // of the mask realm, with its token
}

// minSecret is from how many characters on a secret is hidden: shorter ones
// would hide half of the message's own words.
const minSecret = 4

const hidden = "(hidden)"

// redact hides the secrets of an operation in a message about it.
func redact(message string, op *state.Operation) string {
	var secrets []string
	collect := func(raw json.RawMessage) {
		var tree any
		if json.Unmarshal(raw, &tree) == nil {
			secrets = appendSecrets(secrets, tree, false)
		}
	}
	if op.Inbound != nil {
		collect(op.Inbound.Config)
	}
	if op.Outbound != nil {
		collect(op.Outbound.Config)
	}
	for _, user := range op.Users {
		collect(user.Account)
	}
	// The longest first: one may be a part of another.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, secret := range secrets {
		quoted := strconv.Quote(secret)
		message = strings.ReplaceAll(message, quoted[1:len(quoted)-1], hidden)
		message = strings.ReplaceAll(message, secret, hidden)
	}
	return message
}

func appendSecrets(secrets []string, tree any, secret bool) []string {
	switch v := tree.(type) {
	case string:
		if secret && len(v) >= minSecret && v != "none" {
			secrets = append(secrets, v)
		}
	case []any:
		for _, item := range v {
			secrets = appendSecrets(secrets, item, secret)
		}
	case map[string]any:
		for name, item := range v {
			secrets = appendSecrets(secrets, item, secretMembers[strings.ToLower(name)])
		}
	}
	return secrets
}
