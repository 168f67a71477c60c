package worker

import (
	"fmt"
	"nodeagent/xray/ipc"
)

func invalid(tag string, format string, args ...any) *ipc.OperationError {
	return &ipc.OperationError{Code: ipc.FailureInvalid, Tag: tag, Message: fmt.Sprintf(format, args...)}
}
