// Package hostfile reads files of the host that others name, such as certificates. It holds
// nobody up for long, whatever is at the path: a named pipe, a device without an end, a disk
// that hangs.
package hostfile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// within is how long a file may take. A disk that sleeps needs some seconds.
	within = 5 * time.Second
	// hurried is how long a file may take while another one hangs, so that many files on a disk
	// that hangs do not take a minute each time.
	hurried = 200 * time.Millisecond
	// hangingAtMost bounds the goroutines and threads that wait for disks.
	hangingAtMost = 64
)

// Reader reads files. All methods may be called by any goroutine. mu guards hanging.
type Reader struct {
	most int64
	open func(path string) (file, error)

	mu      sync.Mutex
	hanging map[string]bool // files of which a read has not returned in time
}

// file is what of os.File a Reader uses.
type file interface {
	io.ReadCloser
	Stat() (fs.FileInfo, error)
}

// New makes a Reader that refuses files of more than most bytes.
func New(most int64) *Reader {
	return &Reader{most: most, hanging: map[string]bool{}, open: func(path string) (file, error) {
		// O_NONBLOCK: to open a named pipe would wait for a writer (fifo(7)).
		return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	}}
}

// Read returns what is in a regular file, as os.ReadFile does. Errors name the file.
func (r *Reader) Read(path string) ([]byte, error) {
	path = filepath.Clean(path)
	wait, err := r.patience(path)
	if err != nil {
		return nil, err
	}
	type result struct {
		contents []byte
		err      error
	}
	done := make(chan result, 1)
	go func() {
		contents, err := r.read(path)
		// One step: Read must not find that nothing was told after the path was forgotten.
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.hanging, path)
		done <- result{contents, err} // it has room
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case got := <-done:
		return got.contents, got.err
	case <-timer.C:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case got := <-done: // it came while the lock was taken
		return got.contents, got.err
	default:
		r.hanging[path] = true
		return nil, fmt.Errorf("read %s: the file system did not answer within %s", path, wait)
	}
}

// patience returns how long the file may take.
func (r *Reader) patience(path string) (time.Duration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.hanging[path]:
		return 0, fmt.Errorf("read %s: the file system has not answered the last read yet", path)
	case len(r.hanging) >= hangingAtMost:
		return 0, fmt.Errorf("read %s: %d other files hang, on a file system that does not answer", path, len(r.hanging))
	case len(r.hanging) > 0:
		return hurried, nil
	}
	return within, nil
}

func (r *Reader) read(path string) ([]byte, error) {
	f, err := r.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is a %s; want a regular file", path, kindOf(info.Mode()))
	}
	if info.Size() > r.most {
		return nil, fmt.Errorf("read %s: it has %d bytes; want %d at most", path, info.Size(), r.most)
	}
	contents, err := io.ReadAll(io.LimitReader(f, r.most+1))
	if err == nil && int64(len(contents)) > r.most { // it has grown, or its size says nothing, as in /proc
		err = fmt.Errorf("read %s: it has more than %d bytes", path, r.most)
	}
	if err != nil {
		return nil, err
	}
	return contents, nil
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "folder"
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	case mode&fs.ModeDevice != 0:
		return "device"
	case mode&fs.ModeSocket != 0:
		return "socket"
	}
	return mode.Type().String()
}
