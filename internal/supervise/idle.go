package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Idle tells whether every thread of the process sleeps or is stopped: none
// runs, wants to run, waits for a device or is held by a debugger. The states
// are those of proc_pid_stat(5).
func (p *Process) Idle() (bool, error) {
	folder := filepath.Join("/proc", strconv.Itoa(p.PID()), "task")
	threads, err := os.ReadDir(folder)
	if err != nil {
		return false, fmt.Errorf("list threads: %w", err)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(filepath.Join(folder, thread.Name(), "stat"))
		if err != nil {
			return false, fmt.Errorf("read thread's state: %w", err) // it ended between the two: it was not idle
		}
		// The name before the state is in parentheses and may have some itself.
		_, state, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
		if len(state) == 0 {
			return false, errors.New("read thread's state: the kernel gave none")
		}
		if state[0] != 'S' && state[0] != 'T' {
			return false, nil
		}
	}
	return true, nil
}
