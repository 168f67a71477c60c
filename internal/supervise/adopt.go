package supervise

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrLeave is the cause of a context that ends for the next daemon to go on: an engine leaves the
// processes running that serve clients.
var ErrLeave = errors.New("another daemon goes on with what runs")

// ErrUnknownEnd says that a process has ended, and that only its parent learned how.
var ErrUnknownEnd = errors.New("it ended, and its exit status is not known, because an earlier daemon had started it")

// endError is how a child ended that was started before this process executed its file.
type endError struct{ status unix.WaitStatus }

func (e *endError) Error() string {
	if e.status.Signaled() {
		return "signal: " + e.status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", e.status.ExitStatus())
}

// Killed tells whether err, the result of a process, says that a signal ended the process. An
// adopted process may have been killed: nobody knows.
func Killed(err error) bool {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode() == -1
	}
	if end, ok := errors.AsType[*endError](err); ok {
		return end.status.Signaled()
	}
	return errors.Is(err, ErrUnknownEnd)
}

// Adopt watches a process that runs already and that need not be a child of this one. The caller
// makes sure that the process with this id is the right one, after Adopt has returned: from then
// on, nothing that is done with the Process reaches another process with the same id.
func Adopt(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	// The descriptor stays open after the end: a late signal must not reach another process.
	p := &Process{pid: pid, done: make(chan struct{}), signal: func(s syscall.Signal) { _ = unix.PidfdSendSignal(fd, s, nil, 0) }}
	p.kill = func() { p.signal(syscall.SIGKILL) }
	go func() {
		defer close(p.done)
		// A pidfd can be read once the process has ended (pidfd_open(2)).
		for poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}; ; {
			if n, err := unix.Poll(poll, -1); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		p.err = reap(pid)
	}()
	return p, nil
}

// reap returns how a process ended that has ended.
func reap(pid int) error {
	var status unix.WaitStatus
	for {
		switch got, err := unix.Wait4(pid, &status, unix.WNOHANG, nil); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || got != pid: // no child of this process
			return ErrUnknownEnd
		case status.Exited() && status.ExitStatus() == 0:
			return nil
		}
		return &endError{status}
	}
}
