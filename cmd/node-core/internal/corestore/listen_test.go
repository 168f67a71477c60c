package corestore

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/postgrestest"
)

// heard keeps the news that an instance gets.
type heard struct {
	mu       sync.Mutex
	changed  map[int64]int
	reported map[int64]int
	happened int
	failed   int
	failure  error // the last one
	more     chan struct{}
}

func listen(t *testing.T, s *Store) *heard {
	t.Helper()
	h := &heard{changed: map[int64]int{}, reported: map[int64]int{}, more: make(chan struct{}, 1)}
	note := func(f func()) {
		h.mu.Lock()
		defer h.mu.Unlock()
		f()
		select {
		case h.more <- struct{}{}:
		default:
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Listen(ctx, News{
			Changed: func(nodes ...int64) {
				note(func() {
					for _, n := range nodes {
						h.changed[n]++
					}
				})
			},
			Reported: func(node int64) { note(func() { h.reported[node]++ }) },
			Happened: func() { note(func() { h.happened++ }) },
			Failed:   func(err error) { note(func() { h.failed++; h.failure = err }) },
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return h
}

// until waits for news until is returns true.
func (h *heard) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		h.mu.Lock()
		done := is()
		h.mu.Unlock()
		if done {
			return
		}
		select {
		case <-h.more:
		case <-deadline:
			t.Fatalf("no news of %s: %+v", what, h)
		}
	}
}

// An instance hears what another one commits: changes of configurations, keys and addresses,
// and what nodes say. Changes made while its connection is broken are told afterwards.
func TestInstancesHearEachOther(t *testing.T) {
	if postgrestest.Running() != nil {
		t.Skip("NOT RUN on this server: the test restarts its PostgreSQL; it runs with one of its own outside of TestPostgres")
	}
	server := postgrestest.Start(t)
	url := server.Database(t)
	open := func() *Store {
		s, err := OpenPostgres(t.Context(), Postgres{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	one, other := open(), open()
	node, _, err := one.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	h := listen(t, other)
	h.until(t, "the beginning", func() bool { return h.happened > 0 }) // from here on no message is missed
	must(one.AnnounceURL(t.Context(), "https://core.example/last"))
	h.until(t, "the address", func() bool { return other.Identity().NextURL == "https://core.example/last" })
	count := func(of map[int64]int) int {
		h.mu.Lock()
		defer h.mu.Unlock()
		return of[node.ID]
	}
	before := count(h.changed)
	_, err = one.PutOutbound(t.Context(), Outbound{NodeID: node.ID, Tag: "more", Config: []byte(`{}`)})
	must(err)
	h.until(t, "a change", func() bool { return h.changed[node.ID] > before })
	reported := count(h.reported)
	must(one.AddError(t.Context(), node.ID, "", wire.ErrorRequest{Code: "x", Message: "y"}))
	h.until(t, "a report", func() bool { return h.reported[node.ID] > reported })

	// A key that an instance knows is refused once the node was registered again at another one.
	register := func() string {
		code, err := one.NewCode(t.Context(), node.ID, time.Hour)
		must(err)
		_, key, err := one.Register(t.Context(), wire.RegisterRequest{Code: code, Name: "n", Host: "h", IP: "192.0.2.1"}, "")
		must(err)
		return key
	}
	key := register()
	reported = count(h.reported)
	_, err = one.Heartbeat(t.Context(), node.ID, wire.HeartbeatRequest{}, Daemon{})
	must(err)
	h.until(t, "a heartbeat", func() bool { return h.reported[node.ID] > reported })
	_, err = other.Authenticate(t.Context(), key)
	must(err)
	if _, known := other.known.byKey(keyHash(hashOf(key))); !known {
		t.Error("an instance that hears of changes keeps no key")
	}
	reported = count(h.reported)
	register()
	h.until(t, "a registration", func() bool { return h.reported[node.ID] > reported })
	if _, err := other.Authenticate(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Errorf("the key of before: %v", err)
	}

	// The server goes away, and comes back with a change that was committed unheard.
	server.SQLIn(t, databaseOf(url), `ALTER TABLE nodes DISABLE TRIGGER USER; UPDATE nodes SET revision = revision + 1; ALTER TABLE nodes ENABLE TRIGGER USER`)
	failed := func() int { h.mu.Lock(); defer h.mu.Unlock(); return h.failed }()
	before = count(h.changed)
	server.Crash(t)
	h.until(t, "the end of the connection", func() bool { return h.failed > failed })
	other.known.keepKey(node.ID, other.known.moment(), keyHash(hashOf(key)))
	if _, known := other.known.byKey(keyHash(hashOf(key))); known {
		t.Error("an instance that hears nothing keeps a key")
	}
	server.Launch(t)
	h.until(t, "a change that was missed", func() bool { return h.changed[node.ID] > before })
	if _, err := one.Revision(t.Context(), node.ID); err != nil { // its old connections are replaced
		t.Error(err)
	}
}

// An instance forgets what it knows of a node when another one changes any of it, a key that nobody has
// used yet among it.
func TestInstancesForgetWhatOthersChange(t *testing.T) {
	url := onPostgres(t).Database(t)
	var stores [2]*Store
	for i := range stores {
		s, err := OpenPostgres(t.Context(), Postgres{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		stores[i] = s
	}
	one, other := stores[0], stores[1]
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	node, _, err := one.AddNode(t.Context(), "fra1", "", time.Hour)
	must(err)
	h := listen(t, other)
	h.until(t, "the beginning", func() bool { return h.happened > 0 }) // from here on no message is missed
	// caughtUp returns once the other instance has taken all messages of before: they come in the order of
	// commits.
	caughtUp := func() {
		t.Helper()
		url := "https://core.example/" + rand.Text()
		must(one.AnnounceURL(t.Context(), url))
		h.until(t, "an address", func() bool { return other.Identity().NextURL == url })
	}
	deaf := func() bool {
		other.known.mu.Lock()
		defer other.known.mu.Unlock()
		return other.known.deaf
	}
	for deaf() { // it takes the messages of others before its own one, which shows that messages arrive
		caughtUp()
	}
	register := func() string {
		code, err := one.NewCode(t.Context(), node.ID, time.Hour)
		must(err)
		_, key, err := one.Register(t.Context(), wire.RegisterRequest{Code: code, Name: "n", Host: "h", IP: "192.0.2.1"}, "")
		must(err)
		caughtUp()
		return key
	}
	// keeps has the other instance know a key.
	keeps := func(key string) {
		t.Helper()
		_, err := other.Authenticate(t.Context(), key)
		must(err)
		if _, known := other.known.byKey(keyHash(hashOf(key))); !known {
			t.Fatal("a key is not kept")
		}
	}
	refuses := func(what, key string) {
		t.Helper()
		caughtUp()
		if _, err := other.Authenticate(t.Context(), key); !errors.Is(err, ErrNotFound) {
			t.Errorf("the key of before %s: %v", what, err)
		}
	}

	first := register()
	keeps(first)
	key := register() // before the first heartbeat
	refuses("a registration", first)

	says, from := wire.HeartbeatRequest{IP: "192.0.2.1", Revision: &node.Revision}, Daemon{Boot: "a"}
	beat := func() Beat {
		t.Helper()
		b, err := one.Heartbeat(t.Context(), node.ID, says, from)
		must(err)
		return b
	}
	beat()
	must(one.RotateKey(t.Context(), node.ID))
	next := beat().NextKey
	caughtUp()
	keeps(key)
	_, err = one.Authenticate(t.Context(), next)
	must(err)
	_, err = one.write.ExecContext(t.Context(), `UPDATE nodes SET last_key_ends = 0 WHERE id = ?`, node.ID) // a minute has passed
	must(err)
	refuses("a rotation", key)

	for what, change := range map[string]func(){
		"the address": func() {
			changed := says
			changed.IP = "192.0.2.2"
			_, err = one.Heartbeat(t.Context(), node.ID, changed, from)
			must(err)
		},
		"the daemon":   func() { _, err = one.Heartbeat(t.Context(), node.ID, says, Daemon{Boot: "b"}); must(err) },
		"the versions": func() { must(one.NoteAgent(t.Context(), node.ID, "another", false)); from.Agent = "another" },
		"an event": func() {
			must(one.lookAtNodes(t.Context(), time.Now().Add(2*OfflineAfter), time.Time{}))
			_, err = one.write.ExecContext(t.Context(), `UPDATE nodes SET told_at = 0 WHERE id = ?`, node.ID) // tellPause has passed
			must(err)
		},
	} {
		beat()
		caughtUp()
		said := from
		if _, quiet, err := other.QuietBeat(t.Context(), node.ID, says, said); err != nil || !quiet {
			t.Fatalf("before %s: quiet %t, %v", what, quiet, err)
		}
		change()
		caughtUp()
		if _, known := other.known.beat(node.ID, says, said); known {
			t.Errorf("a heartbeat is answered as before %s", what)
		}
	}
}

func databaseOf(url string) string {
	config, err := postgresConfig(url)
	if err != nil {
		panic(err)
	}
	return config.Database
}

// Instances have one certificate. The first one makes it; a folder with another keeps that aside.
func TestInstancesShareTheCertificate(t *testing.T) {
	url := onPostgres(t).Database(t)
	s, err := OpenPostgres(t.Context(), Postgres{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	write := func(dir, content string) func() error {
		return func() error {
			for _, f := range backupFiles {
				if err := os.WriteFile(filepath.Join(dir, f.name), []byte(content+f.name), f.mode); err != nil {
					return err
				}
			}
			return nil
		}
	}
	first, second, third := t.TempDir(), t.TempDir(), t.TempDir()
	if err := write(third, "old ")(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{first, second, third, third} {
		if err := s.ShareCertificate(t.Context(), dir, write(dir, "made in "+filepath.Base(dir)+" ")); err != nil {
			t.Fatal(err)
		}
		for _, f := range backupFiles {
			raw, err := os.ReadFile(filepath.Join(dir, f.name))
			info, errInfo := os.Stat(filepath.Join(dir, f.name))
			if err != nil || errInfo != nil || string(raw) != "made in "+filepath.Base(first)+" "+f.name || info.Mode().Perm() != f.mode {
				t.Errorf("%s has %q, %v, %v", dir, raw, err, errInfo)
			}
		}
	}
	if kept, err := filepath.Glob(filepath.Join(third, "tls.key.replaced-*")); err != nil || len(kept) != 1 {
		t.Errorf("kept %v, %v", kept, err)
	}
}

// One instance is at its upkeep at a time.
func TestOneInstanceDoesTheUpkeep(t *testing.T) {
	s, err := OpenPostgres(t.Context(), Postgres{URL: onPostgres(t).Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ran := 0
	run := func(f func() error) error { ran++; return f() }
	if err := s.dialect.alone(t.Context(), s.write, func() error {
		return run(func() error {
			return s.dialect.alone(t.Context(), s.write, func() error { return run(func() error { return nil }) })
		})
	}); err != nil || ran != 1 {
		t.Errorf("it ran %d times at once (%v)", ran, err)
	}
	if err := s.dialect.alone(t.Context(), s.write, func() error { return run(func() error { return nil }) }); err != nil || ran != 2 {
		t.Errorf("the lock was not given back (%v)", err)
	}
}
