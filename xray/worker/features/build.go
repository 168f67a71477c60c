package features

import (
	"encoding/json"

	"google.golang.org/protobuf/proto"
)

// buildWith decodes raw into C, one of conf's types, and builds its protobuf M.
func buildWith[M, C any, P interface {
	*C
	Build() (*M, error)
}](raw json.RawMessage) (proto.Message, error) {
	config := P(new(C))
	if err := json.Unmarshal(raw, config); err != nil {
		return nil, err
	}
	message, err := config.Build()
	if err != nil {
		return nil, err
	}
	return any(message).(proto.Message), nil
}

// BuildAny decodes raw into C, one of conf's types, and builds its protobuf message.
func BuildAny[C any, P interface {
	*C
	Build() (proto.Message, error)
}](raw json.RawMessage) (proto.Message, error) {
	config := P(new(C))
	if err := json.Unmarshal(raw, config); err != nil {
		return nil, err
	}
	return config.Build()
}
