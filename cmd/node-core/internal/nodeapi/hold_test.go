package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"nodeagent/coreclient/wire"
)

// deep needs a kilobyte of stack for each of n calls.
func deep(n int) (sum int) {
	var room [1024]byte
	room[n%len(room)] = 1
	if n > 0 {
		sum = deep(n - 1)
	}
	return sum + int(room[n%len(room)])
}

// The goroutine of a held heartbeat does not keep the stack that storing the heartbeat has needed, nor its header.
func TestHeldHeartbeatsHaveSmallStacks(t *testing.T) {
	stopping, stop := context.WithCancel(t.Context())
	a := &API{stopping: stopping}
	const n, kilobytes = 500, 60
	var begun, ended sync.WaitGroup
	begun.Add(n)
	route := a.hold(func(*request) (any, error) {
		defer begun.Done()
		deep(kilobytes)
		return waiting{}, nil
	})
	var before, held runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		ended.Go(func() {
			r := &request{Request: (&http.Request{Header: http.Header{"A": {"b"}}}).WithContext(t.Context())}
			answer, err := route(r)
			if err != nil || !answer.(wire.HeartbeatResponse).OK || r.Header != nil {
				t.Errorf("got %v, %v, with the header %v", answer, err, r.Header)
			}
		})
	}
	begun.Wait()
	runtime.GC()
	runtime.ReadMemStats(&held)
	if each := (int64(held.StackInuse) - int64(before.StackInuse)) / n; each > kilobytes<<10/4 {
		t.Errorf("a held heartbeat has %d bytes of stack, and needed %d to begin", each, kilobytes<<10)
	}
	stop()
	ended.Wait()
}

// A panic while a heartbeat is stored is one of its handler, which says where it was.
func TestHeartbeatsThatPanic(t *testing.T) {
	recovered := func(with any) (got any) {
		defer func() { got = recover() }()
		_, _ = new(API).hold(heartbeatThatPanics(with))(nil)
		return nil
	}
	if got := fmt.Sprint(recovered("a panic")); !strings.Contains(got, "a panic") || !strings.Contains(got, "heartbeatThatPanics") {
		t.Errorf("it panics with %s", got)
	}
	if got, is := recovered(http.ErrAbortHandler).(error); !is || !errors.Is(got, http.ErrAbortHandler) {
		t.Errorf("it panics with %v, want %v", got, http.ErrAbortHandler)
	}
}

func heartbeatThatPanics(with any) func(*request) (any, error) {
	return func(*request) (any, error) { panic(with) }
}
