package rawjson

import (
	"encoding/json"
	"strings"
)

// StringList reads Xray's list of texts: an array, or one text with commas.
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

// UserNames reads a list, or text with commas, as Xray does.
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
