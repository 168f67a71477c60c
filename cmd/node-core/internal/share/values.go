package share

import (
	"encoding/json"
	"strings"
)

// texts is a list of texts, or one text with commas (xray-core, infra/conf/common.go, StringList).
type texts []string

func (t *texts) UnmarshalJSON(raw []byte) error {
	var list []string
	if err := json.Unmarshal(raw, &list); err == nil {
		*t = list
		return nil
	}
	var one string
	if err := json.Unmarshal(raw, &one); err != nil {
		return err
	}
	*t = nil
	if one != "" {
		*t = strings.Split(one, ",")
	}
	return nil
}

// members returns the members of an object by their names in lower case, since Xray does not look
// at capitals. Nothing and null are an empty object.
func members(raw json.RawMessage) (map[string]json.RawMessage, error) {
	var object map[string]json.RawMessage
	if err := unmarshal(raw, &object); err != nil {
		return nil, err
	}
	lower := make(map[string]json.RawMessage, len(object))
	for name, value := range object {
		lower[strings.ToLower(name)] = value
	}
	return lower, nil
}

// unmarshal is json.Unmarshal, which leaves value as it is where raw is empty.
func unmarshal(raw json.RawMessage, value any) error {
	if len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, value)
}

func isSet(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// text returns a JSON string, and "" for anything else.
func text(raw json.RawMessage) string {
	var s string
	_ = unmarshal(raw, &s)
	return s
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
