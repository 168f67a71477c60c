package supervise

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// maxLine bounds what is kept of one line of output, in bytes.
	maxLine = 8 << 10
	// outputGrace is how long output is read after the process has ended, in
	// case a grandchild holds the pipe.
	outputGrace = 500 * time.Millisecond
)

// Spec says what to start.
type Spec struct {
	Path       string
	Args       []string // without the program's name
	Env        []string // the whole environment
	Dir        string   // empty for the parent's
	ExtraFiles []*os.File
	// Line gets each line that the process writes to standard output or error,
	// without its end. It is called by one goroutine at a time for each of the
	// two.
	Line func(line string)
}

// Process is a started child.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // set before done is closed
}

// Start starts the process and waits for it in the background.
func Start(spec Spec) (*Process, error) {
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env, cmd.Dir, cmd.ExtraFiles = spec.Env, spec.Dir, spec.ExtraFiles
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,
		Pdeathsig: syscall.SIGKILL, // the second line of defence: children end with their socket
	}
	cmd.WaitDelay = outputGrace
	stdout, stderr := &lineWriter{line: spec.Line}, &lineWriter{line: spec.Line}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		err := cmd.Wait()
		stdout.flush()
		stderr.flush()
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil
		}
		p.err = err
	}()
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed once the process has ended and its output is read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells how the process ended; nil for exit code 0. Call it after Done.
func (p *Process) Err() error { return p.err }

// Kill ends the process and its group at once.
func (p *Process) Kill() {
	// A negative id is the group; the group's id is the leader's.
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
}

// Stop asks the process to end, kills it when grace is over, and returns once
// it has ended.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
		<-p.done
	}
}

// lineWriter cuts what is written into lines.
type lineWriter struct {
	line func(string)
	rest []byte
	skip bool // the rest of an overlong line is on its way
}

func (w *lineWriter) Write(data []byte) (int, error) {
	n := len(data)
	for len(data) > 0 {
		advance, line, _ := bufio.ScanLines(data, false)
		if advance == 0 {
			w.keep(data)
			break
		}
		w.keep(line)
		w.flush()
		w.skip = false
		data = data[advance:]
	}
	return n, nil
}

func (w *lineWriter) keep(part []byte) {
	if w.skip {
		return
	}
	w.rest = append(w.rest, part...)
	if len(w.rest) > maxLine {
		w.rest = append(w.rest[:maxLine], " …"...)
		w.flush()
		w.skip = true
	}
}

func (w *lineWriter) flush() {
	if len(w.rest) > 0 && w.line != nil {
		w.line(string(w.rest))
	}
	w.rest = w.rest[:0]
}

var _ io.Writer = (*lineWriter)(nil)
