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
)

// handedWait is how long the worker waits for the daemon to read a file. The daemon answers
// earlier, also about a file that it can't read.
const handedWait = 20 * time.Second

// handedFiles gets the contents of files from the daemon, since the worker may not open them (see
// package confine). mu guards the members below it. Any goroutine may call read; serve calls take.
type handedFiles struct {
	ask func(ipc.Message)

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan ipc.File // nil once the daemon's end is closed
}

func newHandedFiles(ask func(ipc.Message)) *handedFiles {
	return &handedFiles{ask: ask, waiting: map[uint64]chan ipc.File{}}
}

var errNoDaemon = errors.New("the daemon is gone")

// read returns the contents of a file that the configuration names.
func (h *handedFiles) read(path string) ([]byte, error) {
	answer := make(chan ipc.File, 1)
	h.mu.Lock()
	if h.waiting == nil {
		h.mu.Unlock()
		return nil, errNoDaemon
	}
	h.next++
	id := h.next
	h.waiting[id] = answer
	h.mu.Unlock()
	h.ask(ipc.Message{Read: &ipc.ReadFile{ID: id, Path: path}})
	select {
	case file, open := <-answer:
		switch {
		case !open:
			return nil, errNoDaemon
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

// close ends all waiting, since no answer comes any more.
func (h *handedFiles) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, answer := range h.waiting {
		close(answer)
	}
	h.waiting = nil
}
