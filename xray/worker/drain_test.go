package worker

import (
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/xray/ipc"
	"nodeagent/xray/worker/traffic"
)

// A worker drains for as long as it may while a stream is open, and not longer.
func TestADrainTakesItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clients := traffic.NewRegistry(func(ipc.Message) {})
		clients.Streams.Add(1)
		w := &server{queue: newMessageQueue(), exec: &executor{instance: &instance{clients: clients, inbounds: newInboundManager()}}}
		began := time.Now()
		<-w.drain(t.Context(), time.Hour, func() {})
		if took := time.Since(began); took != time.Hour {
			t.Errorf("it drained for %s, want an hour", took)
		}
	})
}
