package occupancy

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func open(t *testing.T, path string) *Table {
	t.Helper()
	table, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

// othersOf returns what the others have, as "place:open".
func othersOf(t *Table, person uint64) string {
	t.look.Lock()
	t.next = time.Time{} // look at once
	t.look.Unlock()
	var all []string
	t.Others(person, func(place uint64, open int) { all = append(all, fmt.Sprintf("%d:%d", place, open)) })
	return strings.Join(all, " ")
}

func enter(t *Table, person, place uint64) *Place {
	defer t.Lock()()
	return t.Enter(person, place)
}

// childEnv names the file that the test's own program holds a place in, until it is killed.
const childEnv = "OCCUPANCY_TEST_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		table, err := Open(path)
		if err == nil {
			enter(table, 1, 10)
			enter(table, 1, 10)
			enter(table, 1, 11)
		}
		fmt.Println(err)
		select {}
	}
	os.Exit(m.Run())
}

// The open connections of a process count until it is killed, and no longer. The next process with
// its lane begins at zero.
func TestAKilledWorkerHoldsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "open")
	own := open(t, path)
	if own.Shared() {
		t.Error("another worker lives")
	}
	place := enter(own, 1, 10)
	place.Again()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "<nil>\n" {
		t.Fatalf("the child says %q (%v)", line, err)
	}
	if have := othersOf(own, 1); have != "10:2 11:1" {
		t.Errorf("the child has %q", have)
	}
	if have := othersOf(own, 2); have != "" {
		t.Errorf("of another person, the child has %q", have)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if have := othersOf(own, 1); have != "" {
		t.Errorf("the killed child has %q", have)
	}
	next := open(t, path)
	if have := othersOf(own, 1); have != "" {
		t.Errorf("the next worker begins with %q", have)
	}
	if have := othersOf(next, 1); have != "10:2" {
		t.Errorf("the next worker sees %q", have)
	}
	place.Leave(2)
	if have := othersOf(next, 1); have != "" {
		t.Errorf("after the end it sees %q", have)
	}
}

// No more workers than lanes count, and a full window counts alone.
func TestBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "open")
	var tables []*Table
	for range lanes {
		tables = append(tables, open(t, path))
	}
	if _, err := Open(path); err == nil {
		t.Error("one more worker has a lane")
	}
	for place := range uint64(window) {
		if enter(tables[0], 5, place+1) == nil {
			t.Fatalf("place %d has no room", place)
		}
	}
	if enter(tables[1], 5, 100) != nil {
		t.Error("a place beyond the window has room")
	}
	if err := os.WriteFile(path, []byte{9, 0, 0, 0}, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("a file of another version: %v", err)
	}
}

// Whatever the order of connections that begin and end in three workers, each sees what the others
// have, place by place. The persons share a window.
func TestOthersSeeWhatIsOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "occupancy-*")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		type key struct {
			worker        int
			person, place uint64
		}
		tables, have, places := make([]*Table, 3), map[key]int{}, map[key]*Place{}
		for i := range tables {
			if tables[i], err = Open(filepath.Join(dir, "open")); err != nil {
				t.Fatal(err)
			}
			defer tables[i].Close()
		}
		draw := func(t *rapid.T) key {
			return key{rapid.IntRange(0, 2).Draw(t, "worker"), rapid.Uint64Range(1, 4).Draw(t, "person"), rapid.Uint64Range(1, 3).Draw(t, "place")}
		}
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				k := draw(t)
				if have[k]++; have[k] == 1 {
					places[k] = enter(tables[k.worker], k.person, k.place)
				} else {
					places[k].Again()
				}
			},
			"end": func(t *rapid.T) {
				if k := draw(t); have[k] > 0 {
					places[k].Leave(1)
					have[k]--
				}
			},
			"": func(t *rapid.T) {
				for worker, table := range tables {
					for person := uint64(1); person <= 4; person++ {
						seen := map[uint64]int{}
						table.Others(person, func(place uint64, open int) { seen[place] += open })
						for place := uint64(1); place <= 3; place++ {
							want := 0
							for other := range tables {
								if other != worker {
									want += have[key{other, person, place}]
								}
							}
							if seen[place] != want {
								t.Fatalf("worker %d sees %d connections of person %d at place %d, want %d", worker, seen[place], person, place, want)
							}
						}
					}
				}
			},
		})
	})
}

// A process that holds the lock of the keys and does not go on stalls nobody.
func TestAHeldLockStallsNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "open")
	own, stopped := open(t, path), open(t, path)
	if err := stopped.lock(unix.F_OFD_SETLK, keysLock, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	for place := range uint64(10) { // with a blocking lock, the first one never returns
		if enter(own, 1, place) == nil {
			t.Fatal("no room")
		}
	}
	if own.stuck.IsZero() {
		t.Error("the lock that could not be had is forgotten")
	}
	if err := stopped.lock(unix.F_OFD_SETLK, keysLock, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	enter(own, 1, 1)
	if !own.stuck.IsZero() {
		t.Error("the lock could be had again, and counts as stuck")
	}
}

// A worker without the file goes on without it.
func TestANilTableDoesNothing(t *testing.T) {
	var none *Table
	none.Lock()()
	none.Drain()
	none.Serve()
	none.Enter(1, 1).Again()
	none.Others(1, func(uint64, int) { t.Error("another worker has the person") })
	if lane, is := none.Serving(); is || none.Shared() || none.Lane() != -1 {
		t.Errorf("worker %d serves, of the number %d", lane, none.Lane())
	}
	if err := none.Close(); err != nil {
		t.Error(err)
	}
}

// The worker that takes new connections is the one that started last, of those that say so, neither drain
// nor have ended.
func TestServing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "open")
	workers := []*Table{open(t, path), open(t, path), open(t, path)}
	serving := func(of *Table) string {
		of.look.Lock()
		of.next = time.Time{} // look at once
		of.look.Unlock()
		lane, is := of.Serving()
		return fmt.Sprint(lane, is)
	}
	if got := serving(workers[0]); got != "0 false" {
		t.Errorf("of three workers that begin serves %s", got)
	}
	workers[1].Serve()
	if got := serving(workers[0]); got != "1 true" {
		t.Errorf("while the third begins serves %s", got)
	}
	workers[2].Serve()
	if got := serving(workers[0]); got != "2 true" {
		t.Errorf("of three workers serves %s", got)
	}
	workers[2].Drain()
	workers[2].Serve() // a listener that came late
	if got := serving(workers[0]); got != "1 true" {
		t.Errorf("while the third drains serves %s", got)
	}
	if err := workers[1].Close(); err != nil {
		t.Fatal(err)
	}
	if got := serving(workers[0]); got != "0 false" {
		t.Errorf("besides itself serves %s", got)
	}
	if again := open(t, path); again.Lane() != 1 {
		t.Errorf("the next worker has lane %d", again.Lane())
	}
	if got := serving(workers[0]); got != "0 false" {
		t.Errorf("before another worker listens serves %s", got)
	}
}
