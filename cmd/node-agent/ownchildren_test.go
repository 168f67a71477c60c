package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const askEnv = "NODE_AGENT_TEST_ASK"

// The daemon's socket answers no child of the daemon: a fallback of the worker leads strangers
// nowhere.
func TestChildrenAreNotAnswered(t *testing.T) {
	if path := os.Getenv(askEnv); path != "" {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 2)
		n, _ := conn.Read(answer)
		t.Logf("answered %q", answer[:n])
		if n > 0 {
			t.Fail()
		}
		return
	}
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := strangersOnly{listener}.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("ok"))
			_ = conn.Close()
		}
	}()
	ask := func(name string, args ...string) ([]byte, error) {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), askEnv+"="+path)
		return cmd.CombinedOutput()
	}
	if out, err := ask(os.Args[0], "-test.run=^TestChildrenAreNotAnswered$"); err != nil {
		t.Errorf("a child is answered: %v\n%s", err, out)
	}
	// The child of a child is what an operator's shell starts, to the daemon.
	if out, err := ask("sh", "-c", os.Args[0]+" '-test.run=^TestChildrenAreNotAnswered$' || exit 3; exit 0"); err == nil {
		t.Errorf("another process is not answered:\n%s", out)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer := make([]byte, 2)
	if n, err := conn.Read(answer); n == 0 {
		t.Errorf("the process itself is not answered: %v", err)
	}
}
