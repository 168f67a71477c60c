package supervise

import (
	"bufio"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long the tests wait for an end.
const patience = 20 * time.Second

func ended(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatalf("process %d did not end within %s", p.PID(), patience)
	}
}

// grandchild starts a shell whose parent ends, and adopts it.
func grandchild(t *testing.T, script string) *Process {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `/bin/sh -c "$1" <&- >&- 2>&- & echo $!`, "sh", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(strings.TrimSpace(line), &pid); err != nil {
		t.Fatal(err)
	}
	p, err := Adopt(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// The end of a process that is no child is noticed, and a signal reaches it.
func TestAdoptedProcess(t *testing.T) {
	p := grandchild(t, "exec sleep 60")
	select {
	case <-p.Done():
		t.Fatal("it ended by itself")
	default:
	}
	p.Stop(patience)
	ended(t, p)
	if !errors.Is(p.Err(), ErrUnknownEnd) || !Killed(p.Err()) {
		t.Errorf("it ended with %v, want ErrUnknownEnd", p.Err())
	}
}

// A child that was started before this process executed its file again is reaped, and its exit
// status is known.
func TestAdoptedChild(t *testing.T) {
	for script, want := range map[string]string{"exit 3": "exit status 3", "exit 0": "<nil>", "kill -9 $$": "signal: killed"} {
		cmd := exec.Command("/bin/sh", "-c", "read x; "+script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p, err := Adopt(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		ended(t, p)
		if got := fmt.Sprint(p.Err()); got != want || Killed(p.Err()) != (script == "kill -9 $$") {
			t.Errorf("%s: it ended with %s, want %s", script, got, want)
		}
	}
}

// Nothing reaches a process that has taken the id of an adopted one: the descriptor is of the
// first.
func TestSignalAfterTheEnd(t *testing.T) {
	p := grandchild(t, "exec sleep 60") // one that ends by itself may be gone before it is adopted
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended(t, p)
	p.Kill()
	p.Stop(time.Second)
}
