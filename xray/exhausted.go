package xray

import (
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
)

// exhaustedFor is how long the status shows a worker without descriptors after it has some
// again. Connections come and go, and with them the last descriptor.
const exhaustedFor = time.Minute

// noteExhaustedLocked notes what a worker said of its descriptors. It returns a fault where
// they ran out now, and nil while that is known already.
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
	e.status.Exhausted = next // a new one: Status has handed the one before out
	if before != nil {
		return nil
	}
	return &fault.Fault{Code: wire.CodeDescriptors, Message: message, Retry: true}
}
