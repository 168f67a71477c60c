package supervise

import (
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// Activity counts a process's threads by what they do at one moment.
type Activity struct {
	Running int // they run, or wait for a processor
	Asleep  int // they sleep, or are stopped by a signal
	Held    int // they wait for a device, or a debugger holds them
}

// Activity reads the states of the process's threads (proc_pid_stat(5)). It returns an error
// where a thread ended while it was read; another call may succeed.
func (p *Process) Activity() (Activity, error) {
	var a Activity
	threads, err := procfs.AllThreads(p.PID())
	if err != nil {
		return a, fmt.Errorf("list threads: %w", err)
	}
	for _, thread := range threads {
		stat, err := thread.Stat()
		if err != nil {
			return a, fmt.Errorf("read thread's state: %w", err)
		}
		switch stat.State {
		case "R":
			a.Running++
		case "S", "T":
			a.Asleep++
		default:
			a.Held++
		}
	}
	return a, nil
}

// ProcessorTime returns how much processor time the process has used.
func (p *Process) ProcessorTime() (time.Duration, error) {
	process, err := procfs.NewProc(p.PID())
	if err != nil {
		return 0, fmt.Errorf("find the process: %w", err)
	}
	stat, err := process.Stat()
	if err != nil {
		return 0, fmt.Errorf("read the process's state: %w", err)
	}
	return time.Duration(stat.CPUTime() * float64(time.Second)), nil
}
