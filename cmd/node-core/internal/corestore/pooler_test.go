package corestore

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/postgrestest"
)

// pooled starts PgBouncer in transaction mode with fewer connections than an instance uses, and returns the
// URL of a database behind it.
func pooled(t *testing.T, database string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Skip("NOT RUN: there is no pgbouncer; install it with: apt-get install pgbouncer")
		}
	}
	as := postgrestest.Unprivileged(t)
	dir, err := os.MkdirTemp("", "pooler") // the path of a socket has at most 107 bytes (unix(7))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	to, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pgbouncer.ini")
	config := fmt.Sprintf(`[databases]
* = host=%s
[pgbouncer]
listen_addr =
unix_socket_dir = %s
auth_type = trust
pool_mode = transaction
default_pool_size = 5
max_client_conn = 100
ignore_startup_parameters = extra_float_digits
`, to.Query().Get("host"), dir)
	if err := os.WriteFile(filepath.Join(dir, "users.txt"), []byte("\"core\" \"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config += "auth_file = " + filepath.Join(dir, "users.txt") + "\n"
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if as != nil {
		for _, path := range []string{dir, file, filepath.Join(dir, "users.txt")} {
			if err := os.Chown(path, int(as.Uid), int(as.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var log bytes.Buffer
	cmd := exec.Command(program, file)
	cmd.Stdout, cmd.Stderr, cmd.Dir = &log, &log, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pgbouncer: %s", log.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, ".s.PGSQL.6432")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("pgbouncer takes no connections")
		}
	}
	query := url.Values{"host": {dir}, "port": {"6432"}}
	version, err := exec.Command(program, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !keepsStatements(string(version)) {
		query.Set("default_query_exec_mode", "exec") // as docs/postgresql.md says
	}
	to.RawQuery = query.Encode()
	return to.String()
}

// keepsStatements reports whether a PgBouncer keeps prepared statements (since 1.21), by what it prints of
// its version.
func keepsStatements(version string) bool {
	number := regexp.MustCompile(`\b1\.(\d+)`).FindStringSubmatch(version)
	if number == nil {
		return false
	}
	minor, err := strconv.Atoi(number[1])
	return err == nil && minor >= 21
}

// Two instances behind a pooler that gives each transaction another connection: batches, heartbeats and
// edits count once, and LISTEN goes to PostgreSQL itself.
func TestBehindAPooler(t *testing.T) {
	database := onPostgres(t).Database(t)
	through := Postgres{URL: pooled(t, database), Direct: database}
	var stores [2]*Store
	for i := range stores {
		s, err := OpenPostgres(t.Context(), through)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		stores[i] = s
	}
	h := listen(t, stores[1])
	postTogether(t, stores[0])
	user, err := stores[0].AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	_, nodes, err := stores[0].AddSubscription(t.Context(), user.ID)
	if err != nil || len(nodes) == 0 {
		t.Fatalf("raised %v, %v", nodes, err)
	}
	h.until(t, "the other instance hears of the edit", func() bool { return h.changed[nodes[0]] > 0 })
	if err := stores[1].Upkeep(t.Context(), time.Now()); err != nil {
		t.Error(err)
	}
	if left := onPostgres(t).SQL(t, `SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = '`+nameInURL(t, database)+`'`); left != "0" {
		t.Errorf("%s connections are left in a transaction", left)
	}
}

// An instance whose LISTEN goes to a pooler hears nothing: it says what to do, and keeps nothing of nodes.
func TestAPoolerPassesNoMessages(t *testing.T) {
	s, err := OpenPostgres(t.Context(), Postgres{URL: pooled(t, onPostgres(t).Database(t))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	h := listen(t, s)
	h.until(t, "a failure", func() bool { return h.failed > 0 })
	h.mu.Lock()
	defer h.mu.Unlock()
	if !strings.Contains(h.failure.Error(), "--database-direct") {
		t.Errorf("the failure is %v", h.failure)
	}
	if s.known.keepKey(1, s.known.moment(), keyHash{1}); len(s.known.keys) != 0 {
		t.Error("an instance that hears nothing keeps a key")
	}
}

func nameInURL(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return u.Path[1:]
}
