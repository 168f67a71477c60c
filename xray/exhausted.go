package xray

import (
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
)

// exhaustedFor is how long the status still shows that descriptors ran out after the worker
// has free ones again. Each connection that ends frees one for a moment.
const exhaustedFor = time.Minute

// noteExhaustedLocked records in the status that a worker has no file descriptor left. text
// explains why; it is empty if the worker has some. It returns a fault if that is new, and
// nil otherwise. The caller holds e.mu.
func (e *Engine) noteExhaustedLocked(text string, now time.Time) *fault.Fault {
	before := e.status.Exhausted
	switch {
	case text == "" && before != nil && now.Sub(before.Last) > exhaustedFor:
		e.status.Exhausted = nil
		return nil
	case text == "":
		return nil
	}
	message := fmt.Sprintf("the xray worker has no file descriptor left, so that new connections of clients wait or fail: %s", text)
	next := &Exhausted{Message: message, Since: now, Last: now}
	if before != nil {
		next.Since = before.Since
	}
	e.status.Exhausted = next // not changed in place, because callers of Status have the old pointer
	if before != nil {
		return nil
	}
	return &fault.Fault{Code: wire.CodeDescriptors, Message: message, Retry: true}
}
