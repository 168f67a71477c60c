package rawjson

import (
	"bytes"
	"encoding/json"

	jsonv2 "github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// Canonical writes v with sorted keys and no white space, so that equal objects are equal
// bytes. Of several members of one name the last stays, as encoding/json reads them.
//
// It is not RFC 8785, which jsontext.Value.Canonicalize writes, because the result is what
// Xray is given and not only compared. RFC 8785 rounds integers beyond 2^53 and turns 443.0
// into 443, so that Xray would take a port that it refuses. It knows no members of one name:
// Canonicalize returns an error, by which a configuration that a node serves would be
// refused at the next start, or keeps all of them with jsontext.AllowDuplicateNames, which
// Xray merges into one object.
func Canonical(v any) (json.RawMessage, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	return json.Marshal(tree)
}

// CanonicalObject is Canonical for an object that may be absent: it returns nil for no text
// and for null, and an error for what is no object.
func CanonicalObject(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, nil
	}
	if _, err := Object(raw); err != nil {
		return nil, err
	}
	return Canonical(raw)
}

// DecodeStrict reads raw into v, as encoding/json does, but a member that v does not have is
// an error.
func DecodeStrict(raw json.RawMessage, v any) error {
	return jsonv2.Unmarshal(raw, v, lenient, jsonv2.RejectUnknownMembers(true))
}

// lenient takes what encoding/json takes.
var lenient = jsonv1.DefaultOptionsV1()
