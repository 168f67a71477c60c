package sublink

import (
	"bytes"
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

// filled is a form of the answer that is filled in for each subscription. Where the answer has the
// credentials as they are, it has a gap for them; elsewhere, as in base64, that part is written for
// each subscription. It does not change.
type filled struct {
	pieces []piece
	size   int // bytes that it keeps in memory
}

// part is a text and the gap behind it.
type part struct {
	text []byte
	// gap is the credential behind the text, by its place in secrets; -1 for none.
	gap int
}

// piece is the whole answer, or that of one way.
type piece struct {
	parts []part // nil for one that is written for each subscription
	// live writes the piece.
	live func(corestore.Subscription, string) ([]byte, error)
}

// fill writes a form of the answer for two subscriptions that nobody has, and keeps what they have in
// common. A part that is not the same but for the credentials is written for each subscription.
func fill(plan nodeconfig.Plan, f *format) (*filled, error) {
	one, other := sample(), sample()
	result := &filled{}
	if !f.perWay {
		live := func(sub corestore.Subscription, user string) ([]byte, error) {
			return f.write(f.shown(plan.For(sub, user)))
		}
		named := slices.ContainsFunc(slices.Collect(plan.Indexes()), plan.NamesUser)
		return result, result.add(one, other, named, live)
	}
	for i := range plan.Indexes() {
		live := func(sub corestore.Subscription, user string) ([]byte, error) {
			return f.write(f.shown([]nodeconfig.Way{plan.Way(i, sub, user)}))
		}
		if err := result.add(one, other, plan.NamesUser(i), live); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// sample returns a subscription that nobody has. Its derived passwords have both characters of
// base64 that some forms escape and others do not, so that the forms differ.
func sample() corestore.Subscription {
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

func (f *filled) add(one, other corestore.Subscription, named bool, live func(corestore.Subscription, string) ([]byte, error)) error {
	first, err := live(one, "")
	if err != nil {
		return err
	}
	second, err := live(other, "")
	if err != nil {
		return err
	}
	parts := cut(first, secrets(one))
	if named || !bytes.Equal(join(nil, parts, secrets(other)), second) {
		parts = nil
	}
	for _, p := range parts {
		f.size += len(p.text) + 64 // the part itself
	}
	f.pieces = append(f.pieces, piece{parts, live})
	return nil
}

// of returns the answer for a subscription. One that has credentials of its own, from another panel,
// has none of the gaps' forms.
func (f *filled) of(sub corestore.Subscription, user string) ([]byte, error) {
	values := secrets(sub)
	body := make([]byte, 0, f.size)
	for i := range f.pieces {
		if p := &f.pieces[i]; p.parts != nil && len(sub.Credentials) == 0 {
			body = join(body, p.parts, values)
			continue
		}
		text, err := f.pieces[i].live(sub, user)
		if err != nil {
			return nil, fmt.Errorf("write a part of the answer: %w", err)
		}
		body = append(body, text...)
	}
	return body, nil
}

// secrets are the forms in which an answer can have the credentials of a subscription.
func secrets(sub corestore.Subscription) []string {
	all := []string{sub.UUID, sub.MTProtoSecret}
	for _, password := range nodeconfig.DerivedPasswords(sub) {
		all = append(all, password, url.QueryEscape(password), url.User(password).String())
	}
	return all
}

// cut cuts a text at the secrets.
func cut(text []byte, secrets []string) []part {
	type place struct{ at, which int }
	var places []place
	for which, secret := range secrets {
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
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(len(secrets[b.which]), len(secrets[a.which])))
	})
	var parts []part
	end := 0
	for _, p := range places {
		if p.at < end {
			continue
		}
		parts = append(parts, part{text: bytes.Clone(text[end:p.at]), gap: p.which})
		end = p.at + len(secrets[p.which])
	}
	return append(parts, part{text: bytes.Clone(text[end:]), gap: -1})
}

// join appends the parts with secrets in their gaps.
func join(to []byte, parts []part, secrets []string) []byte {
	for i := range parts {
		to = append(to, parts[i].text...)
		if parts[i].gap >= 0 {
			to = append(to, secrets[parts[i].gap]...)
		}
	}
	return to
}
