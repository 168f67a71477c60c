package rawjson

import (
	"encoding/json"
	"strings"
)

// StringList reads a list of texts, which Xray accepts as an array or as one text with
// commas. It returns nil where raw is neither.
func StringList(raw string) []string {
	var list []string
	if json.Unmarshal([]byte(raw), &list) == nil {
		return list
	}
	var text string
	if json.Unmarshal([]byte(raw), &text) != nil {
		return nil
	}
	return strings.Split(text, ",")
}

// UserNames reads the names of a routing rule's user or inboundTag: an array, or one text
// with commas. It returns an error where raw is neither, and nil for null.
func UserNames(raw json.RawMessage) ([]string, error) {
	var names []string
	var text string
	if string(raw) == "null" {
		return nil, nil
	}
	if json.Unmarshal(raw, &text) == nil {
		return strings.Split(text, ","), nil
	}
	return names, json.Unmarshal(raw, &names)
}
