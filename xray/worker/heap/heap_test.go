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

// While a process starts, its percentage is that of the start, whether the pacer finds it busy or not.
// From the first collection on it is the pacer's, which may have changed before that or never.
func TestPacerHoldsFromTheFirstCollection(t *testing.T) {
	const first = 3200
	var now int
	look := func(p *pacer, of *percentage, allocated uint64) {
		percent, _ := p.look(reading{allocated: p.last.allocated + allocated, live: 4 * mb})
		of.pace(percent)
	}
	for _, test := range []struct {
		name   string
		before []uint64 // what is allocated between two looks, until the first collection
		paced  int
		after  []uint64
		end    int
	}{
		{"the daemon, without a pacer", nil, asGo, nil, asGo},
		{"busy from the start on", []uint64{20 * mb}, busy, []uint64{20 * mb}, busy},
		{"busy, and busy once more", []uint64{20 * mb, 0, 20 * mb}, busy, []uint64{0}, busy},
		{"busy from the first collection on", []uint64{0}, asGo, []uint64{20 * mb}, busy},
		{"comes to rest", []uint64{20 * mb, 0, 0, 0, 0, 0}, asGo, []uint64{0}, asGo},
	} {
		of := percentage{paced: asGo, set: func(percent int) { now = percent }}
		p := newPacer(1024*mb, reading{})
		of.begin(first)
		for _, allocated := range test.before {
			if look(p, &of, allocated); now != first {
				t.Errorf("%s: %d %% before the first collection, want %d", test.name, now, first)
			}
		}
		if of.collected(); now != test.paced {
			t.Errorf("%s: %d %% after the first collection, want %d", test.name, now, test.paced)
		}
		for _, allocated := range test.after {
			look(p, &of, allocated)
		}
		if now != test.end {
			t.Errorf("%s: %d %% at the end, want %d", test.name, now, test.end)
		}
	}
}

// While a worker takes over, it spares memory, whatever the start and the pacer want. Afterwards their
// percentage holds.
func TestSparing(t *testing.T) {
	const first = 3200
	var now int
	of := percentage{paced: asGo, set: func(percent int) { now = percent }}
	of.begin(first)
	of.spare(sparingPercent)
	of.pace(busy)
	of.collected()
	if now != sparingPercent {
		t.Errorf("%d %% during the takeover, want %d", now, sparingPercent)
	}
	if of.endSparing(); now != busy {
		t.Errorf("%d %% after the takeover, want %d", now, busy)
	}
	of.pace(asGo)
	of.endSparing()
	if now != asGo {
		t.Errorf("%d %% at the end, want %d", now, asGo)
	}
	of.begin(first)
	of.spare(sparingPercent)
	of.endSparing()
	if of.collected(); now != asGo {
		t.Errorf("%d %% after the first collection, want %d", now, asGo)
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

// The first collection ends what Begin has set, and the pacer's percentage holds.
func TestBeginEndsWithTheFirstCollection(t *testing.T) {
	t.Setenv("GOGC", "")
	now := func() int {
		ofProcess.mu.Lock()
		defer ofProcess.mu.Unlock()
		percent := debug.SetGCPercent(asGo)
		debug.SetGCPercent(percent)
		return percent
	}
	for _, paced := range []int{asGo, busy} {
		Begin(1024 * mb)
		ofProcess.pace(paced)
		if percent := now(); percent != 3200 {
			t.Fatalf("the percentage is %d, want 3200", percent)
		}
		for percent := 3200; percent != paced; percent = now() {
			if percent != 3200 {
				t.Fatalf("the percentage is %d, want 3200 or %d", percent, paced)
			}
			runtime.GC()
		}
	}
	ofProcess.pace(asGo)
}
