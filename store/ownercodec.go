package store

import "bytes"

// decode decodes an owner as the function decode does. A start reads one for each client, so that the
// form in which this package writes them is read without reflection. The attribution is valid until the
// next call.
func (r *ownerReader) decode(key, value []byte, into *Owner) error {
	if _, err := checkSum(bucketSlots, key, value); err != nil {
		return damagedValue(bucketSlots, key, err)
	}
	if owner, ok := r.plain(value); ok {
		*into = owner
		return nil
	}
	return decode(bucketSlots, key, value, into)
}

// plain reads an owner of a client whose members stand in the order of Owner and whose texts
// have no escapes. ok is false for any other value.
func (r *ownerReader) plain(value []byte) (o Owner, ok bool) {
	r.rest, r.ok = value, true
	r.literal(`{"source":"`)
	o.Engine = r.common(&r.engine)
	r.literal(`,"tag":"`)
	o.Tag = r.common(&r.tag)
	r.literal(`,"key":"`)
	o.Key = string(r.text())
	if r.has(`,"attribution":{"userId":`) {
		a := &r.attribution
		*a = attributed{}
		a.UserID = r.number()
		if r.has(`,"subscriptionId":`) {
			a.subscription = r.number()
			a.SubscriptionID = &a.subscription
		}
		r.literal(`,"nodeProtocolId":`)
		a.NodeProtocolID = r.number()
		r.literal(`,"protocol":"`)
		a.Protocol = r.common(&r.protocol)
		r.literal(`}`)
		o.Attribution = &a.Attribution
	}
	return o, r.ok && (string(r.rest) == "}" || len(r.rest) == sumSize && bytes.HasPrefix(r.rest, []byte(sumHead)) && bytes.HasSuffix(r.rest, []byte(sumTail)))
}

// attributed is an attribution with the number that it points to.
type attributed struct {
	Attribution
	subscription int64
}

// ownerReader reads owners one after the other. Each is a JSON text, of which it reads parts. After a
// part that is not there, ok is false.
type ownerReader struct {
	rest []byte
	ok   bool
	// These are of the owner before: many owners have the same.
	engine, tag, protocol string
	attribution           attributed // of the last owner
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

// common reads a text that is often the one before.
func (r *ownerReader) common(before *string) string {
	if n := len(*before); n > 0 && n < len(r.rest) && r.rest[n] == '"' && string(r.rest[:n]) == *before {
		r.rest = r.rest[n+1:]
		return *before
	}
	if text := r.text(); string(text) != *before {
		*before = string(text)
	}
	return *before
}

// text reads the rest of a string up to its quotation mark.
func (r *ownerReader) text() []byte {
	for i, c := range r.rest {
		switch {
		case c == '"':
			text := r.rest[:i]
			r.rest = r.rest[i+1:]
			return text
		case c == '\\' || c < ' ' || c > '~':
			r.ok = false
			return nil
		}
	}
	r.ok = false
	return nil
}

// number reads an integer of at most 18 digits, as JSON writes it.
func (r *ownerReader) number() (n int64) {
	digits, negative := bytes.CutPrefix(r.rest, []byte("-"))
	end := 0
	for end < len(digits) && digits[end] >= '0' && digits[end] <= '9' && end <= 18 {
		n = n*10 + int64(digits[end]-'0')
		end++
	}
	if end == 0 || end > 18 || digits[0] == '0' && (end > 1 || negative) {
		r.ok = false
		return 0
	}
	r.rest = digits[end:]
	if negative {
		return -n
	}
	return n
}
