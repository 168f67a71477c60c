// Package postgrestest starts a PostgreSQL of its own for tests: in a temporary folder, on a unix
// socket, by a user without privileges, since PostgreSQL refuses to run as root. It takes the
// newest one that Debian's packages have installed (/usr/lib/postgresql).
package postgrestest

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds how long the server may take to start or to end.
const patience = 2 * time.Minute

// address is an environment variable with the URL of a server that runs already.
const address = "NODE_CORE_TEST_POSTGRES"

// Server is a running PostgreSQL. Its superuser is "core", who needs no password.
type Server struct {
	bin      string // folder of the programs
	dir      string // of the socket and the data
	settings []string
	as       *syscall.Credential // nil for the user of the test
	cmd      *exec.Cmd
	ended    chan struct{}
	given    string // the URL of a server that was started elsewhere
}

// Start starts a server, which ends with the test. settings are of postgresql.conf, such as
// "fsync=on"; without one nothing is written to the disk in a durable way. Where no PostgreSQL is
// installed, the test is skipped.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		t.Skip("NOT RUN: no PostgreSQL is in /usr/lib/postgresql; install one with: apt-get install postgresql")
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return majorOf(a) - majorOf(b) })
	s := &Server{bin: filepath.Dir(newest), settings: settings, as: Unprivileged(t)}
	s.makeFolder(t)
	s.run(t, "initdb", "--pgdata", filepath.Join(s.dir, "data"), "--username", "core", "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions")
	s.Launch(t)
	t.Cleanup(func() { s.Stop(t) })
	return s
}

func (s *Server) makeFolder(t testing.TB) {
	t.Helper()
	var err error
	// The path of a socket has at most 107 bytes (unix(7)), and a test's own folder can be longer.
	if s.dir, err = os.MkdirTemp("", "postgres"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(s.dir) })
	if s.as != nil {
		if err := os.Chown(s.dir, int(s.as.Uid), int(s.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// Standby starts a standby of the server, which has what the server has and streams from it. It waits
// until the standby streams.
func (s *Server) Standby(t testing.TB, settings ...string) *Server {
	t.Helper()
	standby := &Server{bin: s.bin, settings: settings, as: s.as}
	standby.makeFolder(t)
	standby.run(t, "pg_basebackup", "--dbname", s.URL("postgres"), "--pgdata", filepath.Join(standby.dir, "data"), "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	standby.Launch(t)
	t.Cleanup(func() { standby.Stop(t) })
	s.await(t, `SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'`, "1")
	return standby
}

// CatchUp waits until a standby has all that its primary has committed.
func (s *Server) CatchUp(t testing.TB, primary *Server) {
	t.Helper()
	lsn := primary.SQL(t, `SELECT pg_current_wal_flush_lsn()`)
	s.await(t, `SELECT pg_last_wal_replay_lsn() >= '`+lsn+`'`, "t")
}

// StopStreaming keeps a standby from getting what its primary commits from now on.
func (s *Server) StopStreaming(t testing.TB) {
	t.Helper()
	s.SQL(t, `ALTER SYSTEM SET primary_conninfo = ''`)
	s.SQL(t, `SELECT pg_reload_conf()`)
	s.await(t, `SELECT count(*) FROM pg_stat_wal_receiver`, "0")
}

// Promote makes a primary of a standby.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.run(t, "pg_ctl", "promote", "--pgdata", filepath.Join(s.dir, "data"), "--wait")
}

// await waits until a query has an answer.
func (s *Server) await(t testing.TB, query, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := s.SQL(t, query)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: got %s, want %s: %s", query, got, want, s.Log())
		}
	}
}

// Running returns the server that the environment names; nil without one.
func Running() *Server {
	given := os.Getenv(address)
	if given == "" {
		return nil
	}
	return &Server{given: given}
}

// Again starts a server and runs the tests of this package once more, in another process, where Running
// returns it. arguments choose the tests; the calling test must not be among them. At least so many must pass.
func Again(t *testing.T, atLeast int, arguments ...string) {
	t.Helper()
	server := Start(t)
	again := exec.Command(os.Args[0], append(arguments, "-test.v", "-test.timeout=15m")...)
	again.Env = append(os.Environ(), address+"="+server.URL("postgres"))
	out, err := again.CombinedOutput()
	if err != nil {
		t.Fatalf("on PostgreSQL: %v\n%s", err, out)
	}
	if passed := strings.Count(string(out), "--- PASS"); passed < atLeast {
		t.Errorf("%d tests have passed, want at least %d:\n%s", passed, atLeast, out)
	}
}

// URL returns the URL of a database of the server.
func (s *Server) URL(database string) string {
	if s.given != "" {
		u, err := url.Parse(s.given)
		if err != nil {
			panic(err)
		}
		u.Path = "/" + database
		return u.String()
	}
	return "postgres://core@/" + database + "?" + url.Values{"host": {s.dir}}.Encode()
}

// Socket returns the folder of the server's socket.
func (s *Server) Socket() string { return s.dir }

// Database makes a new empty database and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text())
	s.SQL(t, "CREATE DATABASE "+name)
	return s.URL(name)
}

// SQL runs statements as the superuser in the database postgres, and returns what psql prints.
func (s *Server) SQL(t testing.TB, statements string) string {
	t.Helper()
	return s.SQLIn(t, "postgres", statements)
}

// SQLIn runs statements in a database.
func (s *Server) SQLIn(t testing.TB, database, statements string) string {
	t.Helper()
	psql := "/usr/bin/psql"
	if s.bin != "" {
		psql = filepath.Join(s.bin, "psql")
	}
	cmd := exec.Command(psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", s.URL(database), "-c", statements)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("psql: %v: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// Launch starts the server's process and waits until it takes connections.
func (s *Server) Launch(t testing.TB) {
	t.Helper()
	args := []string{"-D", filepath.Join(s.dir, "data"), "-k", s.dir}
	for _, setting := range append([]string{"listen_addresses=", "fsync=off", "max_connections=200", "shared_buffers=32MB"}, s.settings...) {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), args...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = log, log, s.dir
	// A test that is killed leaves no server. SIGQUIT ends it at once (postgres(1)).
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as, Pdeathsig: syscall.SIGQUIT}
	started := make(chan error, 1)
	s.ended = make(chan struct{})
	go func() {
		runtime.LockOSThread() // the signal comes when the thread ends that started the process
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
		}
		close(s.ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		if exec.Command(filepath.Join(s.bin, "pg_isready"), "-q", "-d", s.URL("postgres")).Run() == nil {
			return
		}
		select {
		case <-s.ended:
			t.Fatalf("PostgreSQL ended: %s", s.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("PostgreSQL takes no connections: %s", s.Log())
		}
	}
}

// Log returns what the server has logged.
func (s *Server) Log() string {
	raw, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// Stop ends the server and all connections, as a restart by an operator does.
func (s *Server) Stop(t testing.TB) { s.end(t, syscall.SIGINT) }

// Crash ends the server without a checkpoint: the next start recovers from the log.
func (s *Server) Crash(t testing.TB) { s.end(t, syscall.SIGQUIT) }

func (s *Server) end(t testing.TB, signal syscall.Signal) {
	t.Helper()
	_ = s.cmd.Process.Signal(signal) // fails where it has ended
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.ended
		t.Errorf("PostgreSQL did not end within %s: %s", patience, s.Log())
	}
}

// run runs one of the server's programs to its end.
func (s *Server) run(t testing.TB, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
}

// Unprivileged returns the user as whom a server of root's tests runs; nil where the tests are not root's.
func Unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID == nil && errGID == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{uint32(gid)}}
		}
	}
	t.Skip("NOT RUN: PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
	return nil
}

// majorOf returns the version in a path as /usr/lib/postgresql/15/bin/postgres.
func majorOf(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}
