package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Patience is how long tests wait for something that should happen soon.
const Patience = 30 * time.Second

// process is a program that runs until it is stopped. Its output goes to a file.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func start(logPath, path string, args ...string) (*process, error) {
	return startCommand(logPath, exec.Command(path, args...))
}

func startCommand(logPath string, cmd *exec.Cmd) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, log: logPath, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Stop sends the program SIGTERM and waits for its end. It returns an error where the program
// failed.
func (p *process) Stop() error { return p.end(syscall.SIGTERM) }

// end is Stop with another signal.
func (p *process) end(signal syscall.Signal) error {
	_ = p.cmd.Process.Signal(signal)
	select {
	case <-p.done:
	case <-time.After(Patience):
		p.Kill()
		return fmt.Errorf("%s did not end within %s of %s", p.cmd.Path, Patience, signal)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %s; its log:\n%s", p.cmd.Path, p.cmd.ProcessState, p.Log())
	}
	return nil
}

// Kill kills the program.
func (p *process) Kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// PID returns the process id of the program.
func (p *process) PID() int { return p.cmd.Process.Pid }

// Log returns the output of the program and of earlier runs that wrote into the same file.
func (p *process) Log() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// ended reports whether the program has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// output runs a command to its end and returns its output.
func output(ctx context.Context, path string, args ...string) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// outputJSON runs a command that prints one JSON value, and decodes it into v.
func outputJSON(ctx context.Context, v any, path string, args ...string) error {
	stdout, stderr, err := output(ctx, path, append(args, "--output", "json")...)
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", path, args, err, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), v); err != nil {
		return fmt.Errorf("%s %v printed no JSON: %w: %s", path, args, err, stdout)
	}
	return nil
}

// Eventually calls ask until it returns nil. After Patience it returns the last error.
func Eventually(ctx context.Context, ask func() error) error { return Within(ctx, Patience, ask) }

// Within is Eventually with another patience.
func Within(ctx context.Context, patience time.Duration, ask func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("waited %s in vain: %w", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
