package supervise

import (
	"fmt"

	"github.com/prometheus/procfs"
)

// Activity is what a process's threads do at one moment.
type Activity struct {
	Running int // they run, or wait for a processor
	Asleep  int // they sleep, or are stopped
	Held    int // they wait for a device, or a debugger holds them
}

// Activity looks at the threads' states, as proc_pid_stat(5) has them.
func (p *Process) Activity() (Activity, error) {
	var a Activity
	threads, err := procfs.AllThreads(p.PID())
	if err != nil {
		return a, fmt.Errorf("list threads: %w", err)
	}
	for _, thread := range threads {
		stat, err := thread.Stat()
		if err != nil {
			return a, fmt.Errorf("read thread's state: %w", err) // it ended between the two
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
