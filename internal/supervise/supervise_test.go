package supervise

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
}

// wait returns the lines once there are at least n.
func (l *lines) wait(t *testing.T, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		first := slices.Clone(l.all)
		l.mu.Unlock()
		if len(first) >= n {
			return first
		}
		if time.Now().After(deadline) {
			t.Fatalf("the child wrote %q, want %d lines", first, n)
		}
	}
}

func shell(t *testing.T, script string) (*Process, *lines) {
	t.Helper()
	got := &lines{}
	p, err := Start(Spec{Path: "/bin/sh", Args: []string{"-c", script}, Line: got.add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(); <-p.Done() })
	return p, got
}

func TestOutputComesInLines(t *testing.T) {
	p, got := shell(t, `printf 'one\ntwo'; exit 3`)
	<-p.Done()
	if p.Err() == nil || p.Err().Error() != "exit status 3" {
		t.Errorf("ended with %v, want exit status 3", p.Err())
	}
	if want := []string{"one", "two"}; !slices.Equal(got.all, want) {
		t.Errorf("lines %q, want %q", got.all, want)
	}
}

func TestOverlongLineIsCut(t *testing.T) {
	got := &lines{}
	w := &lineWriter{line: got.add}
	for range 10 {
		_, _ = w.Write([]byte(strings.Repeat("x", maxLine/2)))
	}
	_, _ = w.Write([]byte("end\nnext\n"))
	if len(got.all) != 2 || len(got.all[0]) > maxLine+8 || got.all[1] != "next" {
		t.Fatalf("got %d lines, the first of %d bytes, the last %q", len(got.all), len(got.all[0]), got.all[len(got.all)-1])
	}
}

func TestStopKillsAProcessThatIgnoresSIGTERM(t *testing.T) {
	p, got := shell(t, `trap '' TERM; echo ready; while :; do sleep 0.05; done`)
	got.wait(t, 1)
	p.Stop(20 * time.Millisecond)
	if p.Err() == nil || p.Err().Error() != "signal: killed" {
		t.Fatalf("ended with %v, want signal: killed", p.Err())
	}
}

func TestKillEndsTheGroup(t *testing.T) {
	p, got := shell(t, `sleep 60 & echo $!; wait`)
	grandchild, err := strconv.Atoi(got.wait(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	<-p.Done()
	for deadline := time.Now().Add(5 * time.Second); running(grandchild); {
		if time.Now().After(deadline) {
			t.Fatalf("process %d of the group still runs", grandchild)
		}
	}
}

// running reports whether the process exists and is no zombie.
func running(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestBackoff(t *testing.T) {
	b := Backoff{Min: time.Second, Max: 5 * time.Second, Healthy: time.Minute}
	var waits []time.Duration
	for _, ran := range []time.Duration{time.Second, 0, 0, 0, 0, 2 * time.Minute, 0} {
		waits = append(waits, b.Next(ran))
	}
	want := []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 0, time.Second}
	if !slices.Equal(waits, want) {
		t.Fatalf("waits %v, want %v", waits, want)
	}
}
