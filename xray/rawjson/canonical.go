package rawjson

import (
	"bytes"
	"encoding/json"

	jsonv2 "github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// canonical writes v with sorted keys and no white space, so that equal
// objects are equal bytes.
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

// canonicalObject is canonical for an object that may be absent.
func CanonicalObject(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, nil
	}
	if _, err := Object(raw); err != nil {
		return nil, err
	}
	return Canonical(raw)
}

func DecodeStrict(raw json.RawMessage, v any) error {
	return jsonv2.Unmarshal(raw, v, lenient, jsonv2.RejectUnknownMembers(true))
}

// lenient takes what encoding/json takes.
var lenient = jsonv1.DefaultOptionsV1()
