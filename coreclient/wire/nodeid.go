package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// NodeID is Core's id of the node. The contract does not fix its JSON type: a number and a string
// are both accepted. It is kept as text.
type NodeID string

// UnmarshalJSON accepts a JSON string or number.
func (id *NodeID) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, (*string)(id))
	}
	var number json.Number
	if err := json.Unmarshal(data, &number); err != nil {
		return fmt.Errorf("nodeId is %s, want a string or a number", data)
	}
	*id = NodeID(number.String())
	return nil
}

// MarshalJSON writes an id that consists of digits as a number, any other one as a string.
func (id NodeID) MarshalJSON() ([]byte, error) {
	if n, err := strconv.ParseInt(string(id), 10, 64); err == nil && strconv.FormatInt(n, 10) == string(id) {
		return []byte(id), nil
	}
	return json.Marshal(string(id))
}
