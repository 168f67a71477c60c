package worker

import (
	"errors"
	"testing"

	"nodeagent/xray/ipc"
	"nodeagent/xray/worker/certfiles"
)

// Without a daemon that knows which files the worker may ask for, nobody is asked, and a goroutine that
// waits for a daemon that is gone learns so at once. The next daemon makes up for it.
func TestFilesWithoutADaemon(t *testing.T) {
	first, second := &ipc.FrameConn{}, &ipc.FrameConn{}
	asked := make(chan *ipc.FrameConn, 1)
	var h *handedFiles
	h = newHandedFiles(first, func(to *ipc.FrameConn, m ipc.Message) {
		if to == second {
			h.take(ipc.File{ID: m.Read.ID, Contents: []byte(m.Read.Path)})
		}
		asked <- to
	})
	failed := make(chan error, 1)
	go func() {
		_, err := h.read("certificate")
		failed <- err
	}()
	if <-asked != first {
		t.Fatal("the first daemon was not asked")
	}
	h.disconnect()
	if err := <-failed; !errors.Is(err, certfiles.ErrNoDaemon) {
		t.Errorf("who waits for a daemon that is gone learns %v", err)
	}
	noDaemon := func(when string) {
		t.Helper()
		if _, err := h.read("certificate"); !errors.Is(err, certfiles.ErrNoDaemon) {
			t.Errorf("%s: %v", when, err)
		}
	}
	noDaemon("without a daemon")
	if h.knows(first) {
		t.Error("a daemon that is gone makes up for something")
	}
	noDaemon("after the late answer to a daemon that is gone")
	h.connect(second)
	noDaemon("before the next daemon knows the files")
	if !h.knows(second) {
		t.Error("the next daemon does not make up for the reads that failed")
	}
	if contents, err := h.read("certificate"); err != nil || string(contents) != "certificate" {
		t.Errorf("the next daemon handed %q, %v", contents, err)
	}
	<-asked
	if h.knows(second) {
		t.Error("a read is made up for twice")
	}
}
