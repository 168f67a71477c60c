package xray_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// children are the processes that a process has started and that live.
func children(t *testing.T, pid int) []string {
	t.Helper()
	var all []string
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(lists) == 0 {
		t.Fatalf("the kernel does not tell the children of %d: %v", pid, err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // of a thread that has ended meanwhile
		all = append(all, strings.Fields(string(text))...)
	}
	return all
}

// standsStill tells whether all threads of a process are stopped: they are not yet when
// the signal has been sent.
func standsStill(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("the kernel does not tell the threads of %d: %v", pid, err)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		if _, state, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}
