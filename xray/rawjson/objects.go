package rawjson

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// Core's document is read by the engine that becomes encoding/json's own in Go
// 1.27, with the meaning that encoding/json has (jsonv1): a hundred thousand
// clients are ten megabytes, and it is three times as fast.

// Object splits a JSON object into its members.
func Object(raw json.RawMessage) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := jsonv1.Unmarshal(raw, &members); err != nil {
		return nil, err
	}
	if members == nil {
		return nil, fmt.Errorf("it is null, want an object")
	}
	return members, nil
}

// Elements splits a JSON array, or null, into its elements, which are parts of raw.
func Elements(raw []byte) ([]jsontext.Value, error) {
	decoder := jsontext.NewDecoder(bytes.NewBuffer(raw), lenient)
	switch first, err := decoder.ReadToken(); {
	case err != nil:
		return nil, err
	case first.Kind() == 'n':
		return nil, nil
	case first.Kind() != '[':
		return nil, fmt.Errorf("it is %s, want an array", first.Kind())
	}
	var all []jsontext.Value
	for decoder.PeekKind() != ']' {
		value, err := valueIn(raw, decoder)
		if err != nil {
			return nil, err
		}
		all = append(all, value)
	}
	return all, nil
}

// valueIn is the decoder's next value, as the part of raw that it is: what
// ReadValue returns is the decoder's own until the next read.
func valueIn(raw []byte, decoder *jsontext.Decoder) (jsontext.Value, error) {
	value, err := decoder.ReadValue()
	if err != nil {
		return nil, err
	}
	end := decoder.InputOffset()
	return raw[end-int64(len(value)) : end : end], nil
}

// Member is one of a JSON object.
type Member struct {
	Name  string
	Value jsontext.Value
}

// Text returns the member's value if that is a string, or else false.
func (m *Member) Text() (string, bool) {
	text, ok := m.AppendText(nil)
	return string(text), ok
}

// AppendText appends the member's value to a buffer of the caller if that is a string, or
// else returns the buffer as it is and false.
func (m *Member) AppendText(to []byte) ([]byte, bool) {
	if m.Value.Kind() != '"' {
		return to, false
	}
	to, _ = jsontext.AppendUnquote(to, m.Value) // it has been read: only what is no UTF-8 is an error, and replaced
	return to, true
}

// MemberReader reads one object after the other in the same memory.
type MemberReader struct {
	decoder *jsontext.Decoder
	members []Member
}

func NewMemberReader() *MemberReader {
	return &MemberReader{decoder: jsontext.NewDecoder(new(bytes.Buffer), lenient)}
}

// Read returns an object's members, sorted by their names; of several of one name
// the last. They are valid until the next read.
func (r *MemberReader) Read(raw []byte) ([]Member, error) {
	r.decoder.Reset(bytes.NewBuffer(raw), lenient)
	r.members = r.members[:0]
	if first, err := r.decoder.ReadToken(); err != nil {
		return nil, err
	} else if first.Kind() != '{' {
		return nil, fmt.Errorf("it is %s, want an object", first.Kind())
	}
	for r.decoder.PeekKind() != '}' {
		name, err := r.decoder.ReadToken()
		if err != nil {
			return nil, err
		}
		m := Member{Name: name.String()}
		if m.Value, err = valueIn(raw, r.decoder); err != nil {
			return nil, err
		}
		r.members = append(r.members, m)
	}
	slices.SortStableFunc(r.members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	last := r.members[:0]
	for i, m := range r.members {
		if i+1 == len(r.members) || r.members[i+1].Name != m.Name {
			last = append(last, m)
		}
	}
	r.members = last
	return last, nil
}

// Find returns the member of that name, nil where there is none.
func Find(members []Member, name string) *Member {
	i, found := slices.BinarySearchFunc(members, name, func(m Member, name string) int { return cmp.Compare(m.Name, name) })
	if !found {
		return nil
	}
	return &members[i]
}

// HasText tells whether the member of that name is a text that is not empty.
func HasText(members []Member, name string) bool {
	m := Find(members, name)
	if m == nil {
		return false
	}
	text, _ := m.Text()
	return text != ""
}

// AppendMembers writes members as they stand between an object's braces, without
// white space.
func AppendMembers(to []byte, members []Member) ([]byte, error) {
	var err error
	for i, m := range members {
		if i > 0 {
			to = append(to, ',')
		}
		if to, err = jsontext.AppendQuote(to, m.Name); err != nil {
			return nil, err
		}
		if to, err = jsontext.AppendFormat(append(to, ':'), m.Value, lenient); err != nil {
			return nil, err
		}
	}
	return to, nil
}
