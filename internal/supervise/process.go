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
	// maxLine is how much of one line of output is kept, in bytes.
	maxLine = 8 << 10
	// outputGrace is how long output is read after the process has ended. A grandchild
	// may hold the pipe open for ever.
	outputGrace = 500 * time.Millisecond
)

// Spec says what to start.
type Spec struct {
	Path       string
	Name       string     // the program's name as the process sees it; empty for Path
	Args       []string   // without the program's name
	Env        []string   // the whole environment: the parent's is not inherited
	Dir        string     // working directory; empty for the parent's
	ExtraFiles []*os.File // the child's descriptors from 3 on; the caller closes its own
	// DiesWithParent makes the kernel kill the child when the thread that started it ends
	// (PR_SET_PDEATHSIG, prctl(2)): when the parent dies or executes another file.
	DiesWithParent bool
	// Line gets each line that the process writes to standard output or standard error,
	// without the line end. Two goroutines call it, one for each of the two.
	Line func(line string)
	// Output takes what the process writes to standard output and standard error, in the place of
	// Line; nil for Line. The process may outlive the parent then. The caller closes its own.
	Output *os.File
}

// Process is a child that was started, or a process of an earlier parent that was adopted.
type Process struct {
	pid    int
	signal func(syscall.Signal) // sends it to the process, and never to another one with its id
	kill   func()
	done   chan struct{}
	err    error // set before done is closed
}

// Start starts the process. A goroutine waits for its end and closes Done then.
func Start(spec Spec) (*Process, error) {
	cmd := exec.Command(spec.Path, spec.Args...)
	if spec.Name != "" {
		cmd.Args[0] = spec.Name
	}
	cmd.Env, cmd.Dir, cmd.ExtraFiles = spec.Env, spec.Dir, spec.ExtraFiles
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if spec.DiesWithParent {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.WaitDelay = outputGrace
	stdout, stderr := &lineWriter{line: spec.Line}, &lineWriter{line: spec.Line}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if spec.Output != nil {
		cmd.Stdout, cmd.Stderr = spec.Output, spec.Output
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	p := &Process{
		pid: cmd.Process.Pid, done: make(chan struct{}),
		signal: func(s syscall.Signal) { _ = cmd.Process.Signal(s) },
		// A negative id names the group, whose id is the leader's (kill(2)).
		kill: func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) },
	}
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

// PID returns the process's id.
func (p *Process) PID() int { return p.pid }

// Done returns a channel that is closed once the process has ended and its output is read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended, nil for exit code 0, as exec.Cmd.Wait does; ErrUnknownEnd
// for a process that is no child. Call it after Done is closed.
func (p *Process) Err() error { return p.err }

// Kill kills the process, and its group where it is a child.
func (p *Process) Kill() { p.kill() }

// Stop sends SIGTERM, kills the process and its group after grace, and returns once the
// process has ended.
func (p *Process) Stop(grace time.Duration) {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
		<-p.done
	}
}

// lineWriter passes each line that is written to it to a function.
type lineWriter struct {
	line func(string)
	rest []byte // of a line whose end has not come
	skip bool   // the line was too long and was passed on: drop the rest of it
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
