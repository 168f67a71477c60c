package rawjson

import (
	"bytes"
	"encoding/json"

	jsonv2 "github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// Canonical writes v as JSON with sorted names and without white space, so that equal
// objects are equal bytes. Numbers keep the digits with which they are written.
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

// CanonicalObject returns the canonical form of an object. It returns nil where raw is
// empty or null, and an error where raw is another kind of value.
func CanonicalObject(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, nil
	}
	if _, err := Object(raw); err != nil {
		return nil, err
	}
	return Canonical(raw)
}

// DecodeStrict decodes raw into v as encoding/json does, and refuses a member that v has no
// field for.
func DecodeStrict(raw json.RawMessage, v any) error {
	return jsonv2.Unmarshal(raw, v, lenient, jsonv2.RejectUnknownMembers(true))
}

// lenient makes the decoder accept the same texts as encoding/json.
var lenient = jsonv1.DefaultOptionsV1()
