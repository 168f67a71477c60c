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
	// itself and in the kernel on its behalf, to the hundredth of a second. The kernel
	// samples: many short calls may not show in System.
	User, System time.Duration
	// Calls are those of read and write since the start; what is sent and received as
	// datagrams is not among them. -1 where the kernel does not tell.
	Calls int64
	// Datagrams are those that went over UDP in the process's network namespace, of
	// other processes too. -1 where the kernel does not tell.
	Datagrams int64
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
	a.Calls, a.Datagrams = calls(process), datagrams(process)
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

func calls(process procfs.Proc) int64 {
	io, err := process.IO()
	if err != nil {
		return -1
	}
	return int64(io.SyscR + io.SyscW)
}

func datagrams(process procfs.Proc) int64 {
	v4, err := process.Snmp()
	if err != nil {
		return -1
	}
	v6, err := process.Snmp6()
	if err != nil {
		return -1
	}
	all := int64(0)
	for _, n := range []*float64{v4.Udp.InDatagrams, v4.Udp.OutDatagrams, v6.Udp6.InDatagrams, v6.Udp6.OutDatagrams} {
		if n != nil { // a host without IPv6 has no counters of it
			all += int64(*n)
		}
	}
	return all
}
