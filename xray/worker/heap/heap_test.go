package heap

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"pgregory.net/rapid"
)

const mb = 1 << 20

// While much is allocated, garbage may grow to twice what lives; where memory is short, to less. At
// rest it is given back once, and Go paces as it does by itself.
func TestPacer(t *testing.T) {
	p := newPacer(1024*mb, reading{})
	var now reading
	look := func(allocated, live uint64) (int, bool) {
		now.allocated, now.live = now.allocated+allocated, live
		return p.look(now)
	}
	for _, step := range []struct {
		name            string
		allocated, live uint64
		looks           int
		percent         int
		rest            bool
	}{
		{"starts as Go does", 0, 4 * mb, 1, 100, false},
		{"is busy", 2 * mb, 4 * mb, 1, 200, false},
		{"is quiet for a moment", 0, 4 * mb, restAfter - 1, 200, false},
		{"has come to rest", 0, 4 * mb, 1, 100, true},
		{"stays at rest", 0, 4 * mb, 100, 100, false},
		{"allocates little for what lives", 2 * mb, 400 * mb, 1, 100, false},
		{"needs an eighth of the memory for garbage", 20 * mb, 256 * mb, 1, 150, false},
		{"has no memory for garbage", 80 * mb, 4096 * mb, 1, 103, false},
		{"comes to rest again", 0, 64 * mb, restAfter, 100, true},
		{"is busy soon after", 80 * mb, 400 * mb, 1, 132, false},
		{"collects 400 MB at rest every 40 looks", 0, 400 * mb, restAfter, 100, false},
		{"waits for that", 0, 400 * mb, 40 - restAfter - 2, 100, false},
		{"and makes up for it", 0, 400 * mb, 1, 100, true},
	} {
		var percent int
		var rest bool
		for range step.looks {
			percent, rest = look(step.allocated, step.live)
		}
		if percent != step.percent || rest != step.rest {
			t.Errorf("%s: %d %%, rest %v; want %d, %v", step.name, percent, rest, step.percent, step.rest)
		}
	}
}

// Whatever is allocated, the garbage beyond what Go allows by itself is an eighth of the memory at
// most, within the steps of the percentage.
func TestPacerIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		memory := rapid.Uint64Range(16*mb, 1<<40).Draw(t, "memory")
		p := newPacer(memory, reading{})
		var now reading
		for range rapid.IntRange(1, 200).Draw(t, "looks") {
			now.allocated += rapid.Uint64Range(0, 1<<30).Draw(t, "allocated")
			now.live = rapid.Uint64Range(0, memory).Draw(t, "live")
			percent, rest := p.look(now)
			if percent < asGo || percent > busy || rest && percent != asGo {
				t.Fatalf("%d %%, rest %v", percent, rest)
			}
			if more := now.live / 100 * uint64(percent-asGo); more > memory/memoryPart+now.live*steps/100 && p.quiet == 0 {
				t.Fatalf("%d bytes of garbage more of %d", more, memory)
			}
		}
	})
}

// The least limit of a group and those above it counts.
func TestLimitOf(t *testing.T) {
	root := t.TempDir()
	inner := filepath.Join(root, "system.slice", "node-agent.service")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(folder, text string) {
		if err := os.WriteFile(filepath.Join(folder, "memory.max"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is := func(want uint64) {
		t.Helper()
		if got := limitOf(root, "memory.max", "/system.slice/node-agent.service"); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	is(^uint64(0))
	write(inner, "max\n")
	is(^uint64(0))
	write(filepath.Dir(inner), "2097152\n")
	is(2 * mb)
	write(inner, "1048576\n")
	is(mb)
	write(inner, "4194304\n")
	is(2 * mb)
	if got := limitOf(root, "memory.max", "/../../of/another/namespace"); got != ^uint64(0) {
		t.Errorf("outside of the namespace: %d", got)
	}
	if got := Available(); got < 16*mb {
		t.Errorf("this process may take %d bytes", got)
	}
}

// A process that starts collects nothing before its heap has a size at which that pays; where memory is
// short, it collects sooner.
func TestFirstPercent(t *testing.T) {
	for memory, want := range map[uint64]int{16 * mb: 50, 256 * mb: 800, 1024 * mb: 3200, 64 * 1024 * mb: 3200} {
		if got := firstPercent(memory); got != want {
			t.Errorf("with %d MB the first percentage is %d, want %d", memory/mb, got, want)
		}
	}
}

// The first collection ends what Begin has set.
func TestBeginEndsWithTheFirstCollection(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(asGo))
	Begin(1024 * mb)
	if percent := debug.SetGCPercent(3200); percent != 3200 {
		t.Fatalf("the percentage is %d, want 3200", percent)
	}
	for percent := 0; percent != asGo; runtime.Gosched() {
		runtime.GC()
		percent = debug.SetGCPercent(asGo)
		if percent != asGo {
			debug.SetGCPercent(percent)
		}
	}
}
