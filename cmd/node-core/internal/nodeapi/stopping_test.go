package nodeapi

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// A heartbeat that Core holds is answered when Core stops, long before the time that the node waits.
func TestHeldHeartbeatIsAnsweredAtAStop(t *testing.T) {
	c := newCore(t)
	stopping, stop := context.WithCancel(t.Context())
	c.api.stopping = stopping
	body := fmt.Sprintf(`{"revision":%d}`, c.revision())
	answered := make(chan answer, 1)
	go func() {
		answered <- c.send(http.MethodPost, wire.PathHeartbeat, map[string]string{"x-node-auth-key": c.key, "Prefer": "wait=60"}, body)
	}()
	stop()
	select {
	case a := <-answered:
		var h wire.HeartbeatResponse
		if c.want(http.StatusOK, a, &h); !h.OK || h.NeedSync {
			t.Errorf("the answer is %+v", h)
		}
	case <-time.After(30 * time.Second):
		t.Error("the heartbeat is held after the stop")
	}
}
