package process

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/logkey"
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
	idle func() // is called once everything was read; nil for nothing
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
	warnings := &lineLog{log: log}
	o := &outputFile{
		file: file, line: func(line string) { warnings.add(p.Output.add(line), time.Now()) },
		idle: func() { warnings.sumUp(time.Now()) },
	}
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
	if o.idle != nil {
		o.idle()
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

const (
	// maxWarnings is how many warnings of one telemt a minute are logged. Strangers cause them: telemt has
	// one for every two connections with wrong secrets.
	maxWarnings = 20
	warningTime = time.Minute
)

// lineLog logs telemt's lines. Warnings, errors and the fatal line are warnings; all else is for
// debugging. It is used by one goroutine at a time.
type lineLog struct {
	log        *slog.Logger
	began      time.Time // of the minute
	told, left int       // warnings of this minute that are logged, and those that are not
}

func (l *lineLog) add(line string, now time.Time) {
	fatal := strings.HasPrefix(line, "[telemt] ")
	if !fatal && !strings.Contains(line, " WARN ") && !strings.Contains(line, " ERROR ") {
		l.log.Debug("output of telemt", logkey.Line, line)
		return
	}
	l.sumUp(now)
	if now.Sub(l.began) >= warningTime {
		l.began, l.told = now, 0
	}
	if !fatal && l.told >= maxWarnings {
		l.left++
		l.log.Debug("output of telemt", logkey.Line, line)
		return
	}
	l.told++
	l.log.Warn("output of telemt", logkey.Line, line)
}

// sumUp logs, once the minute is over, how many warnings were left out.
func (l *lineLog) sumUp(now time.Time) {
	if l.left == 0 || now.Sub(l.began) < warningTime {
		return
	}
	l.log.Warn("telemt warned of more; log_level debug has all of it", logkey.Lines, l.left)
	l.left = 0
}
