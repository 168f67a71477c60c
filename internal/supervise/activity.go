package supervise

import (
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// Activity is what a process does and has done.
type Activity struct {
	// Asleep tells that every thread sleeps or is stopped: none runs, wants to run,
	// waits for a device or is held by a debugger.
	Asleep bool
	// User and System are the processor's time since the start, in the program
	// itself and in the kernel on its behalf, to the hundredth of a second.
	User, System time.Duration
	// Calls are those of read and write since the start, -1 where the kernel does not
	// tell. What is sent and received as datagrams is not among them, and shows in
	// System.
	Calls int64
}

// clockTick is the unit of proc_pid_stat(5)'s times.
const clockTick = time.Second / 100

// Activity reads what the process does, from proc(5).
func (p *Process) Activity() (Activity, error) {
	a := Activity{Asleep: true}
	process, err := procfs.NewProc(p.PID())
	if err != nil {
		return a, fmt.Errorf("read process: %w", err)
	}
	stat, err := process.Stat()
	if err != nil {
		return a, fmt.Errorf("read process's times: %w", err)
	}
	a.User, a.System = time.Duration(stat.UTime)*clockTick, time.Duration(stat.STime)*clockTick
	if calls, err := process.IO(); err == nil {
		a.Calls = int64(calls.SyscR + calls.SyscW)
	} else {
		a.Calls = -1
	}
	threads, err := procfs.AllThreads(p.PID())
	if err != nil {
		return a, fmt.Errorf("list threads: %w", err)
	}
	for _, thread := range threads {
		stat, err := thread.Stat()
		if err != nil {
			return a, fmt.Errorf("read thread's state: %w", err) // it ended between the two: it was not asleep
		}
		a.Asleep = a.Asleep && (stat.State == "S" || stat.State == "T")
	}
	return a, nil
}
