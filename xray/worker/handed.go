package worker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"nodeagent/xray/ipc"
	"nodeagent/xray/worker/certfiles"
)

// handedWait is how long the worker waits for the daemon to read a file. The daemon answers
// earlier, also about a file that it can't read.
const handedWait = 20 * time.Second

// handedFiles gets the contents of files from the daemon, since the worker may not open them (see
// package confine). Without a daemon that knows which files the worker may ask for, a read fails at
// once with certfiles.ErrNoDaemon. mu guards the members below it. Any goroutine may call read.
// The goroutine of serve calls connect and disconnect, the one of operate knows, and receive take.
type handedFiles struct {
	ask func(daemon *ipc.FrameConn, m ipc.Message)

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan ipc.File
	daemon  *ipc.FrameConn // the one that is connected; nil for none
	ready   bool           // daemon knows which files the worker may ask for
	missed  bool           // a read failed because there was no daemon
}

// newHandedFiles asks the daemon that has started the worker.
func newHandedFiles(daemon *ipc.FrameConn, ask func(*ipc.FrameConn, ipc.Message)) *handedFiles {
	return &handedFiles{ask: ask, waiting: map[uint64]chan ipc.File{}, daemon: daemon, ready: true}
}

// read returns the contents of a file that the configuration names.
func (h *handedFiles) read(path string) ([]byte, error) {
	answer := make(chan ipc.File, 1)
	h.mu.Lock()
	if !h.ready {
		h.missed = true
		h.mu.Unlock()
		return nil, certfiles.ErrNoDaemon
	}
	h.next++
	id := h.next
	h.waiting[id] = answer
	daemon := h.daemon
	h.mu.Unlock()
	h.ask(daemon, ipc.Message{Read: &ipc.ReadFile{ID: id, Path: path}})
	select {
	case file, open := <-answer:
		switch {
		case !open:
			return nil, certfiles.ErrNoDaemon
		case file.Missing:
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		case file.Error != "":
			return nil, errors.New(file.Error)
		}
		return file.Contents, nil
	case <-time.After(handedWait):
		h.mu.Lock()
		delete(h.waiting, id)
		h.mu.Unlock()
		return nil, fmt.Errorf("read %s: the daemon did not answer within %s", path, handedWait)
	}
}

// open opens a geo file, or gets any other file from the daemon. xray-core opens its files with it.
func (h *handedFiles) open(path string) (io.ReadCloser, error) {
	if slices.ContainsFunc(assetFolders(), func(folder string) bool { return folder != "" && isBelow(path, folder) }) {
		return os.Open(path)
	}
	contents, err := h.read(path)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(contents)), nil
}

// isBelow tells whether the path leads below the folder.
func isBelow(path, folder string) bool {
	below, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(below)
}

// take passes the daemon's answer on.
func (h *handedFiles) take(file ipc.File) {
	h.mu.Lock()
	answer := h.waiting[file.ID]
	delete(h.waiting, file.ID)
	h.mu.Unlock()
	if answer != nil {
		answer <- file
	}
}

// connect makes daemon the one that is asked, once it knows which files the worker may ask for.
func (h *handedFiles) connect(daemon *ipc.FrameConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.goneLocked()
	h.daemon = daemon
}

// knows says that daemon is told which files the worker may ask for, by a message before the next
// one. It reports whether a read failed meanwhile.
func (h *handedFiles) knows(daemon *ipc.FrameConn) (missed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.daemon != daemon { // it is gone
		return false
	}
	missed = h.missed
	h.ready, h.missed = true, false
	return missed
}

// disconnect ends all waiting, since no answer comes any more.
func (h *handedFiles) disconnect() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.goneLocked()
}

func (h *handedFiles) goneLocked() {
	for _, answer := range h.waiting {
		close(answer)
		h.missed = true
	}
	clear(h.waiting)
	h.daemon, h.ready = nil, false
}
