package ipc

import (
	"fmt"
)

func Invalid(tag string, format string, args ...any) *OperationError {
	return &OperationError{Code: FailureInvalid, Tag: tag, Message: fmt.Sprintf(format, args...)}
}
