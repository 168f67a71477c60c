package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// family has the memory of a daemon and of its children, in megabytes. What several processes share, as the
// program's file, is divided among them (Pss in proc_pid_smaps(5)).
type family struct {
	daemon, workers float64
	others          float64 // a program that tries the state
}

func (f family) all() float64 { return f.daemon + f.workers + f.others }

func (f family) most(o family) family {
	if o.all() > f.all() {
		f.daemon, f.others = o.daemon, o.others
	}
	f.workers = max(f.workers, o.workers)
	return f
}

// familyOf reads the memory of a daemon and of its children. One that has ended has none.
func familyOf(daemon int) (f family) {
	f.daemon = share(daemon)
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", daemon)) // the pattern is valid
	for _, list := range lists {
		pids, _ := os.ReadFile(list) // none of a thread that has ended
		for word := range strings.FieldsSeq(string(pids)) {
			pid, _ := strconv.Atoi(word)
			command, _ := os.ReadFile("/proc/" + word + "/cmdline")
			if bytes.Contains(command, []byte("xray-worker")) {
				f.workers += share(pid)
			} else {
				f.others += share(pid)
			}
		}
	}
	return f
}

// share is Pss of a process, in megabytes.
func share(pid int) float64 {
	file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) >= 2 && words[0] == "Pss:" {
			kilobytes, _ := strconv.ParseFloat(words[1], 64) // it is a number
			return kilobytes / 1000
		}
	}
	return 0
}

// watchFamily looks at the memory until stop is called, which returns the most of it.
func watchFamily(daemon int) (stop func() family) {
	const every = 10 * time.Millisecond
	ended := make(chan struct{})
	var most family
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			most = most.most(familyOf(daemon))
			select {
			case <-tick.C:
			case <-ended:
				return
			}
		}
	})
	return func() family {
		close(ended)
		watching.Wait()
		return most
	}
}

// BenchmarkTakeoverMemory reports how much memory two workers with 100,000 clients take while a new build
// takes over at a reload, as a part of what one takes before (the bound is 2), what daemon, workers and the
// trial of the new build take together, and what is left of that afterwards.
func BenchmarkTakeoverMemory(b *testing.B) {
	programs := benchPrograms(b)
	other, err := secondBuild(programs)
	benchCheck(b, err)
	builds := []string{programs.Agent, other}
	uuids, target := benchUUIDs(manyClients), echoByte(b)
	r := newBenchPair(b, kindVLESS("", streams{}))
	r.progs.Agent = filepath.Join(r.dir, "node-agent")
	put := func(build string) {
		b.Helper()
		data, err := os.ReadFile(build)
		benchCheck(b, err)
		benchCheck(b, errors.Join(os.WriteFile(r.progs.Agent+".new", data, 0o755), os.Rename(r.progs.Agent+".new", r.progs.Agent)))
	}
	put(builds[0])
	r.startAgent(b)
	r.serve(b, uuids)
	r.firstOpen(b, uuids[manyClients-1], target)
	benchCheck(b, r.core.applied(b.Context()))
	var ratios, workers, alls, befores, afters, highest []float64
	for i := 1; b.Loop(); i++ {
		time.Sleep(atRest)
		before, old := familyOf(r.agent.PID()), r.worker(b).PID
		put(builds[i%2])
		most := watchFamily(r.agent.PID())
		benchCheck(b, r.agent.cmd.Process.Signal(syscall.SIGHUP))
		ended := func() error {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", old)); err == nil {
				return errors.New("the worker before has not ended")
			}
			return nil
		}
		if Eventually(b.Context(), ended) != nil { // the trial of the new build is long on a busy machine
			benchCheck(b, Eventually(b.Context(), ended))
		}
		during := most()
		high, err := memory(r.worker(b).PID, "VmHWM")
		benchCheck(b, err)
		time.Sleep(atRest)
		after := familyOf(r.agent.PID())
		ratios = append(ratios, during.workers/before.workers)
		workers, alls = append(workers, during.workers), append(alls, during.all())
		befores, afters = append(befores, before.all()), append(afters, after.all())
		highest = append(highest, high)
	}
	b.ReportMetric(median(ratios), "workers/one")
	b.ReportMetric(median(workers), "MB-workers")
	b.ReportMetric(median(alls), "MB-all")
	b.ReportMetric(median(befores), "MB-before")
	b.ReportMetric(median(afters), "MB-after")
	b.ReportMetric(median(highest), "MB-worker-VmHWM")
}
