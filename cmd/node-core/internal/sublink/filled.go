package sublink

import (
	"bytes"
	"fmt"
	"slices"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/gaps"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

// filled is a form of the answer that is filled in for each subscription. Where the answer has the
// credentials as they are, it has a gap for them; elsewhere, as in base64, that part is written for
// each subscription. It does not change.
type filled struct {
	pieces []piece
	size   int // bytes that it keeps in memory
}

// piece is the whole answer, or that of one way.
type piece struct {
	text gaps.Text
	// alike says that text is the piece for subscriptions without credentials of their own. Otherwise it is
	// written for each subscription.
	alike bool
	// live writes the piece.
	live func(corestore.Subscription, string) ([]byte, error)
}

// fill writes a form of the answer for two subscriptions that nobody has, and keeps what they have in
// common. A part that is not the same but for the credentials is written for each subscription.
func fill(plan nodeconfig.Plan, f *format) (*filled, error) {
	one, other := gaps.Sample(), gaps.Sample()
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

func (f *filled) add(one, other corestore.Subscription, named bool, live func(corestore.Subscription, string) ([]byte, error)) error {
	first, err := live(one, "")
	if err != nil {
		return err
	}
	second, err := live(other, "")
	if err != nil {
		return err
	}
	text, alike := gaps.Cut(bytes.Clone(first), gaps.CredentialsOf(one), second, gaps.CredentialsOf(other))
	if named || !alike {
		text, alike = gaps.Text{}, false
	}
	f.size += text.Size()
	f.pieces = append(f.pieces, piece{text, alike, live})
	return nil
}

// of returns the answer for a subscription. One that has credentials of its own, from another panel,
// has none of the gaps' forms.
func (f *filled) of(sub corestore.Subscription, user string) ([]byte, error) {
	values := gaps.CredentialsOf(sub)
	body := make([]byte, 0, f.size)
	for i := range f.pieces {
		if p := &f.pieces[i]; p.alike && len(sub.Credentials) == 0 {
			body = p.text.Append(body, values)
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
