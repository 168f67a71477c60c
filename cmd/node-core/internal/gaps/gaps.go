// Package gaps keeps texts that differ between subscriptions by the credentials alone. The package cuts a text, which
// was written for a subscription that nobody has, at the credentials, and fills in those of other subscriptions.
package gaps

import (
	"bytes"
	"cmp"
	"net/url"
	"slices"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

// Text is a text with gaps for the credentials of a subscription. It does not change. The zero Text is
// empty.
type Text struct {
	parts []part
	kept  int // bytes that the parts keep in memory, between them too
}

// part is a text and the gap behind it.
type part struct {
	text []byte
	// gap is the credential behind the text, by its place in Credentials; -1 for none.
	gap int
}

// Credentials are the forms in which a text can have the credentials of a subscription.
type Credentials []string

// CredentialsOf returns the forms that all subscriptions have. One with Subscription.Credentials has others
// beside them: its texts have to be written for it.
func CredentialsOf(sub corestore.Subscription) Credentials {
	all := Credentials{sub.UUID, sub.MTProtoSecret}
	for _, password := range nodeconfig.DerivedPasswords(sub) {
		all = append(all, password, url.QueryEscape(password), url.User(password).String())
	}
	return all
}

// Sample returns a subscription that nobody has. Its derived passwords have both characters of
// base64 that some forms escape and others do not, so that the forms differ.
func Sample() corestore.Subscription {
	for {
		var sub corestore.Subscription
		sub.Rotate()
		plain := func(password string) bool {
			return !strings.Contains(password, "+") || !strings.Contains(password, "/")
		}
		if !slices.ContainsFunc(nodeconfig.DerivedPasswords(sub), plain) {
			return sub
		}
	}
}

// Cut cuts a text at the credentials of the subscription for which it was written. The Text owns it from then
// on, with its spare capacity: the caller changes it no more, and gives a clone of one that has much of that and
// is kept for long. other is the same text for another one: alike is false where the two differ by more than the gaps.
func Cut(text []byte, of Credentials, other []byte, ofOther Credentials) (cut Text, alike bool) {
	cut = cutAt(text, of)
	return cut, bytes.Equal(cut.Append(nil, ofOther), other)
}

func cutAt(text []byte, of Credentials) Text {
	type place struct{ at, which int }
	var places []place
	for which, secret := range of {
		for at := 0; secret != ""; {
			next := bytes.Index(text[at:], []byte(secret))
			if next < 0 {
				break
			}
			places = append(places, place{at + next, which})
			at += next + len(secret)
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		// Of two that begin at one place, the longer one.
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(len(of[b.which]), len(of[a.which])))
	})
	var parts []part
	end := 0
	for _, p := range places {
		if p.at < end {
			continue
		}
		parts = append(parts, part{text[end:p.at], p.which})
		end = p.at + len(of[p.which])
	}
	return Text{append(parts, part{text[end:], -1}), cap(text)}
}

// Append appends the text for a subscription.
func (t Text) Append(to []byte, of Credentials) []byte {
	for i := range t.parts {
		to = append(to, t.parts[i].text...)
		if t.parts[i].gap >= 0 {
			to = append(to, of[t.parts[i].gap]...)
		}
	}
	return to
}

// Size is about how many bytes the text keeps in memory.
func (t Text) Size() int {
	return t.kept + 64*len(t.parts) // the parts themselves
}
