package store

import (
	"bytes"
	"strconv"
)

// decodeOwner decodes an owner as decode does. A start reads one for each client, so that the form
// in which this package writes them is read without reflection.
func decodeOwner(key, value []byte, into *Owner) error {
	if _, err := checkSum(bucketSlots, key, value); err != nil {
		return damagedValue(bucketSlots, key, err)
	}
	if owner, ok := plainOwner(value); ok {
		*into = owner
		return nil
	}
	return decode(bucketSlots, key, value, into)
}

// plainOwner reads an owner of a client whose members stand in the order of Owner and whose texts
// have no escapes. ok is false for any other value.
func plainOwner(value []byte) (o Owner, ok bool) {
	r := ownerReader{rest: value, ok: true}
	r.literal(`{"source":"`)
	o.Engine = r.text()
	r.literal(`,"tag":"`)
	o.Tag = r.text()
	r.literal(`,"key":"`)
	o.Key = r.text()
	if r.has(`,"attribution":{"userId":`) {
		a := &attributed{}
		a.UserID = r.number()
		if r.has(`,"subscriptionId":`) {
			a.subscription = r.number()
			a.SubscriptionID = &a.subscription
		}
		r.literal(`,"nodeProtocolId":`)
		a.NodeProtocolID = r.number()
		r.literal(`,"protocol":"`)
		a.Protocol = r.text()
		r.literal(`}`)
		o.Attribution = &a.Attribution
	}
	return o, r.ok && (string(r.rest) == "}" || len(r.rest) == sumSize && bytes.HasPrefix(r.rest, []byte(sumHead)))
}

// attributed is an attribution with the number that it points to: one piece of memory.
type attributed struct {
	Attribution
	subscription int64
}

// ownerReader reads parts of a JSON text. After a part that is not there, ok is false.
type ownerReader struct {
	rest []byte
	ok   bool
}

// has passes over a literal, and reports whether it was there.
func (r *ownerReader) has(literal string) bool {
	if !bytes.HasPrefix(r.rest, []byte(literal)) {
		return false
	}
	r.rest = r.rest[len(literal):]
	return true
}

func (r *ownerReader) literal(literal string) { r.ok = r.has(literal) && r.ok }

// text reads the rest of a string up to its quotation mark.
func (r *ownerReader) text() string {
	for i, c := range r.rest {
		switch {
		case c == '"':
			text := string(r.rest[:i])
			r.rest = r.rest[i+1:]
			return text
		case c == '\\' || c < ' ' || c > '~':
			r.ok = false
			return ""
		}
	}
	r.ok = false
	return ""
}

func (r *ownerReader) number() int64 {
	end := bytes.IndexAny(r.rest, ",}")
	if end < 0 {
		r.ok = false
		return 0
	}
	n, err := strconv.ParseInt(string(r.rest[:end]), 10, 64)
	r.ok = r.ok && err == nil && string(strconv.AppendInt(nil, n, 10)) == string(r.rest[:end])
	r.rest = r.rest[end:]
	return n
}
