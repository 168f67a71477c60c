package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// reloaded is a node whose program is a file that a test replaces, with a client whose connection never
// ends.
type reloaded struct {
	*unnoticed
	original, second string // two builds
	target           *Target
	conn             net.Conn
	pid              int
}

func newReloaded(t *testing.T) *reloaded {
	t.Helper()
	r := &reloaded{unnoticed: newUnnoticed(t, unnoticedRows()[:1])}
	r.halt()
	r.stopAgent()
	r.original, r.second = r.agent.path, anotherBuild(t)
	r.install()
	r.start()
	r.target = r.unnoticed.target()
	r.conn = r.dial(r.clientOf(r.rows[0], r.user), r.target)
	must(t, Exchange(r.conn, 0, 1))
	r.pid = r.agent.PID()
	return r
}

// putFaulty puts the second build there, which fails as buildFaulty says.
func (r *reloaded) putFaulty(fault string) {
	r.t.Helper()
	must(r.t, os.WriteFile(filepath.Join(filepath.Dir(r.agent.path), "fault"), []byte(fault), 0o600))
	r.put(r.second)
}

// says waits until the status of the agent, whose program may be any file, has a text, or has it no
// more. The client's connection goes on.
func (r *reloaded) says(text string, has bool) {
	r.t.Helper()
	asked := &Agent{process: r.agent.process, path: r.original, dir: r.agent.dir}
	must(r.t, Eventually(r.ctx, func() error {
		status, err := asked.StatusText(r.ctx)
		if err == nil && strings.Contains(status, text) != has {
			err = fmt.Errorf("the status is %s", status)
		}
		return err
	}))
	must(r.t, bounded(r.conn, 1000, 2000))
}

// told waits until Core has been told.
func (r *reloaded) told(text string) {
	r.t.Helper()
	must(r.t, Eventually(r.ctx, func() error {
		node, err := r.core.Node(r.ctx, "node")
		if err == nil && (node.LastError == nil || !strings.Contains(*node.LastError, text)) {
			err = fmt.Errorf("of the node's last error Core has %v", node.LastError)
		}
		return err
	}))
}

// takenOver waits until another worker than the one with a process id serves.
func (r *reloaded) takenOver(before int) {
	r.t.Helper()
	asked := &Agent{process: r.agent.process, path: r.original, dir: r.agent.dir}
	must(r.t, Eventually(r.ctx, func() error {
		now, err := asked.Status(r.ctx)
		if err == nil && (now.Engines.Xray.PID == before || now.Engines.Xray.State != "running") {
			err = errors.New("no other worker has taken over")
		}
		return err
	}))
	must(r.t, bounded(r.conn, 3000, 4000))
	fresh := r.dial(r.clientOf(r.rows[0], r.user), r.target)
	must(r.t, Exchange(fresh, 100, 100))
	_ = fresh.Close()
}

func (r *reloaded) worker() int {
	r.t.Helper()
	asked := &Agent{process: r.agent.process, path: r.original, dir: r.agent.dir}
	now, err := asked.Status(r.ctx)
	must(r.t, err)
	return now.Engines.Xray.PID
}

// accounted stops the node, and checks that each byte was counted once.
func (r *reloaded) accounted() {
	r.t.Helper()
	_ = r.conn.Close()
	r.stopAgent()
	want, first := r.target.Traffic(), r.people[0].target.Traffic()
	r.wantUsage(map[Account]Traffic{{r.user.UserID, r.rows[0].at.ID}: {want.Up + first.Up, want.Down + first.Down}})
}

// At a reload the daemon gives way to the version that is on the disk, in the same process. A file
// that is no program, one that panics, one that hangs and one with another store change nothing:
// status says so.
func TestUnnoticedReload(t *testing.T) {
	r := newReloaded(t)
	program, err := os.ReadFile(r.second)
	must(t, err)
	bad := map[string]func(){
		"does not fit together": func() { r.program(program[:len(program)/2]) },
		"is no program":         func() { r.program([]byte("nonsense")) },
		"panics":                func() { r.putFaulty("try-state panics") },
		"has a newer store":     func() { r.putFaulty("store newer") },
	}
	if os.Getenv("UNNOTICED_ROUNDS") != "" { // it takes 20 seconds
		bad["hangs"] = func() { r.putFaulty("try-state hangs") }
	}
	const givenUp = "can't take over"
	for what, put := range bad {
		put()
		r.reload()
		r.says(givenUp, true)
		if r.agent.ended() {
			t.Fatalf("a program that %s ended the daemon", what)
		}
		r.put(r.original) // another file than the one that runs, and the same build
		r.reload()
		r.says(givenUp, false)
	}
	r.told(givenUp)
	before := r.worker()
	r.putFaulty("")
	r.reload()
	r.takenOver(before)
	if r.agent.ended() || r.agent.PID() != r.pid {
		t.Error("the daemon is another process")
	}
	r.accounted()
}

// A version that crashes within a minute after it took over is given up, and so is one whose worker
// crashes. The version before goes on, also after another start.
func TestUnnoticedCrashOfANewVersion(t *testing.T) {
	r := newReloaded(t)
	const givenUp = "within a minute"

	r.putFaulty("xray-worker panics soon")
	r.reload()
	r.says(givenUp, true)
	r.told(givenUp)
	if r.agent.ended() || r.agent.PID() != r.pid {
		t.Error("the daemon is another process")
	}
	r.reload() // the file is the same
	r.says(givenUp, true)

	r.put(r.original)
	r.reload()
	r.says(givenUp, false)

	r.putFaulty("run panics soon")
	r.reload()
	must(t, Eventually(r.ctx, func() error {
		if !r.agent.ended() {
			return errors.New("the new version has not crashed")
		}
		return nil
	}))
	must(t, bounded(r.conn, 1000, 2000))
	for range 2 { // as systemd starts it again
		must(t, r.agent.Start(r.ctx))
		r.says(givenUp, true)
		must(t, r.agent.Leave())
	}
	must(t, r.agent.Start(r.ctx))
	r.accounted()
}

// The file on the disk changes while it is tried, or can't be executed once it was: only a file that was
// tried is executed, and the daemon then tries the next one.
func TestUnnoticedChangeWhileAFileIsTried(t *testing.T) {
	r := newReloaded(t)
	const givenUp = "can't take over"
	// next puts a script there which ends as a version that can take over does, after it has done something.
	next := func(do string) {
		t.Helper()
		r.program([]byte(fmt.Sprintf("#!/bin/sh\n[ \"$1\" = try-state ] || exit 3\n%s\n", do)))
	}
	waiting := 0
	// waits keeps a build beside the program, and returns how a script puts it there.
	waits := func(build string) string {
		t.Helper()
		waiting++
		path := fmt.Sprintf("%s.next%d", r.agent.path, waiting)
		data, err := os.ReadFile(build)
		must(t, err)
		must(t, os.WriteFile(path, data, 0o755))
		return fmt.Sprintf("mv %s %s", path, r.agent.path)
	}
	goesOn := func(what string) {
		t.Helper()
		if r.agent.ended() || r.agent.PID() != r.pid {
			t.Fatalf("%s ended the daemon:\n%s", what, r.agent.Log())
		}
	}
	worker := r.worker()

	next("chmod 644 " + r.agent.path)
	r.reload()
	r.says("execute "+r.agent.path+": permission denied", true)
	goesOn("a file that can't be executed")

	// The next file crashes where it is tried, and nowhere else: it must not run untried.
	must(t, os.WriteFile(filepath.Join(filepath.Dir(r.agent.path), "fault"), []byte("try-state panics"), 0o600))
	next(waits(r.second))
	r.reload()
	r.says(givenUp, true)
	goesOn("a file that was never tried")
	if now := r.worker(); now != worker {
		t.Errorf("worker %d runs, want %d", now, worker)
	}

	// Three files, one after the other.
	must(t, os.WriteFile(filepath.Join(filepath.Dir(r.agent.path), "fault"), nil, 0o600))
	script := r.agent.path + ".script"
	must(t, os.WriteFile(script, []byte(fmt.Sprintf("#!/bin/sh\n[ \"$1\" = try-state ] || exit 3\n%s\n", waits(r.second))), 0o755))
	next(fmt.Sprintf("mv %s %s", script, r.agent.path))
	r.reload()
	r.takenOver(worker)
	r.says(givenUp, false)
	goesOn("the last of three files")
	r.accounted()
}
