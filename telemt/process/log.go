package process

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// outputEvery is how often telemt's output is read where nobody asks for it.
	outputEvery = 200 * time.Millisecond
	// maxOutput is the size of the file of telemt's output, in bytes, from which it is emptied
	// once it was read.
	maxOutput = 1 << 20
	// maxFile is how large a file of telemt's may be at the most, in bytes: its output grows while no
	// daemon reads it, for example. Its other files are far smaller.
	maxFile = 16 << 20
	// maxOutputLine is how much of a line is kept, in bytes.
	maxOutputLine = 8 << 10
)

// output is the file that telemt writes its output to. A pipe would end with the daemon, and telemt
// with its next line.
func (f Folder) output() string { return filepath.Join(string(f), "output.log") }

// openOutput makes the file of telemt's output, which is empty.
func (f Folder) openOutput() (*os.File, error) {
	file, err := os.OpenFile(f.output(), os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the file of telemt's output: %w", err)
	}
	return file, nil
}

// boundFiles bounds the files that the process with an id writes, also without a daemon. Where a write fails
// because of that (EFBIG, setrlimit(2)), telemt drops the line and goes on: it has inherited that the signal
// SIGXFSZ, which comes with it, is ignored (ignoreFileBound).
func boundFiles(pid int) error {
	var limit unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &limit)
	if err == nil {
		limit.Cur = min(limit.Max, maxFile)
		err = unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil)
	}
	if err != nil {
		return fmt.Errorf("bound the files of process %d: %w", pid, err)
	}
	return nil
}

// ignoreFileBound lets this process and those that it starts ignore SIGXFSZ, which otherwise ends a process
// that has no handler for it (signal(7)).
func ignoreFileBound() { signal.Ignore(syscall.SIGXFSZ) }

// outputFile reads lines from a file that grows.
type outputFile struct {
	mu   sync.Mutex // no other lock but Output's is taken under it
	file *os.File
	rest []byte
	line func(string)
}

// follow passes the lines of telemt's output to Output and the log, until telemt has ended. whole is
// false where the lines that are there already were read by an earlier daemon.
func (p *Process) follow(path string, whole bool, log *slog.Logger) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err == nil && !whole {
		_, err = file.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return fmt.Errorf("read telemt's output: %w", err)
	}
	o := &outputFile{file: file, line: func(line string) { logLine(log, p.Output.add(line)) }}
	p.Output.read = o.read
	p.ended, p.left = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(p.ended)
		tick := time.NewTicker(outputEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				o.read()
			case <-p.left:
				o.close()
				return
			case <-p.Process.Done():
				o.read()
				o.close()
				return
			}
		}
	}()
	return nil
}

// read reads what has come.
func (o *outputFile) read() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := o.file.Read(buffer)
		o.rest = append(o.rest, buffer[:n]...)
		for {
			line, rest, whole := bytes.Cut(o.rest, []byte("\n"))
			if !whole {
				break
			}
			o.line(string(line[:min(len(line), maxOutputLine)]))
			o.rest = rest
		}
		o.rest = o.rest[:min(len(o.rest), maxOutputLine)]
		if n == 0 || err != nil {
			break
		}
	}
	if at, err := o.file.Seek(0, io.SeekCurrent); err == nil && at > maxOutput {
		// A line that comes in between is lost. telemt appends, so that it goes on at the beginning.
		if err := o.file.Truncate(0); err == nil {
			_, _ = o.file.Seek(0, io.SeekStart)
		}
	}
}

func (o *outputFile) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.rest) > 0 {
		o.line(string(o.rest))
	}
	_ = o.file.Close()
	o.file, o.rest = nil, nil
}

// Leave lets telemt run on without this daemon. The Process is not used after it.
func (p *Process) Leave() {
	close(p.left)
	<-p.ended
}

// Done returns a channel that is closed once telemt has ended and its output is read.
func (p *Process) Done() <-chan struct{} { return p.ended }
