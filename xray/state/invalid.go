package state

import "fmt"

// InvalidError means that a configuration was refused before anything was
// touched. It is final for that configuration.
type InvalidError struct {
	Tag     string // of the inbound or outbound; empty where it concerns neither
	Message string
}

func (e *InvalidError) Error() string { return e.Message }

func Invalid(tag, format string, args ...any) *InvalidError {
	return &InvalidError{Tag: tag, Message: fmt.Sprintf(format, args...)}
}
