package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
)

// A version that executes itself because the next one was not executed is on probation as before: where it
// was on probation, a crash still leads back to the program before it.
func TestProbationOfAVersionThatExecutesItself(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for name, was := range map[string]bool{"on probation": true, "not on probation": false} {
		dir := t.TempDir()
		if was {
			kept := filepath.Join(dir, keptProgram)
			if err := os.WriteFile(kept, []byte("the program before"), 0o700); err != nil {
				t.Fatal(err)
			}
			p := &probation{File: identified(t, ownFile), Kept: kept, Begun: true, path: filepath.Join(dir, probationFile)}
			if err := p.write(); err != nil {
				t.Fatal(err)
			}
		}
		next := filepath.Join(dir, "next")
		if err := os.WriteFile(next, []byte("the next program"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := startProbation(dir, next, identified(t, next), log); err != nil {
			t.Fatal(err)
		}
		if p, back := beginProbation(dir, "", log); (p != nil) != was || back {
			t.Errorf("a version that was %s: probation %+v, it goes back: %v", name, p, back)
		}
		if kept := exists(filepath.Join(dir, keptProgram)); kept != was {
			t.Errorf("a version that was %s: the program before is kept: %v", name, kept)
		}
		if _, back := beginProbation(dir, "panic", log); back != was {
			t.Errorf("a version that was %s crashes: it goes back: %v", name, back)
		}
	}
}

// A version whose minute ends while it gives way to the next one leaves that one's probation alone.
func TestProbationEndsForItsOwnVersion(t *testing.T) {
	for name, own := range map[string]bool{"its own": true, "the next version's": false} {
		dir := t.TempDir()
		kept := filepath.Join(dir, keptProgram)
		if err := os.WriteFile(kept, []byte("the program before"), 0o700); err != nil {
			t.Fatal(err)
		}
		p := probation{File: identified(t, ownFile), Kept: kept, Begun: true, mu: &sync.Mutex{}, path: filepath.Join(dir, probationFile)}
		noted := p
		if !own {
			noted.File = identified(t, kept)
		}
		if err := noted.write(); err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) { p.pass(t.Context()) })
		if exists(p.path) == own || exists(kept) == own {
			t.Errorf("the probation is %s: it is noted: %v, the program before is kept: %v", name, exists(p.path), exists(kept))
		}
	}
}

func identified(t *testing.T, path string) programID {
	t.Helper()
	file, err := identifyProgram(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}
