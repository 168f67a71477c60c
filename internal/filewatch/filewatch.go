package filewatch

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long no event may come before the functions are called: a renewal
	// writes several files.
	settle = 300 * time.Millisecond
	// settleAtMost is how long after the first event the functions are called at the
	// latest: another program may write into the same folder all the time.
	settleAtMost = 800 * time.Millisecond
	// scanInterval is how often all functions are called without an event: a folder above
	// the last one may have been replaced, or the file system may send no events.
	scanInterval = time.Minute
	// maxFollows is how often the links of a file are followed again because they changed
	// meanwhile.
	maxFollows = 5
)

// Watch calls functions when files may have changed. It watches the folders of the files
// and of all symbolic links that lead to them: certbot and Kubernetes replace links, and
// other programs write into the file that a link leads to.
//
// Add and Remove may be called from any goroutine. Run calls the functions, so a function
// may call Add and Remove.
type Watch struct {
	watcher *fsnotify.Watcher // nil where the host has no inotify instance left

	mu      sync.Mutex
	entries map[string]*entry // by the name that Add was given
	watches map[string]bool   // folders that were added to watcher

	wake    chan struct{} // one slot: dirty or lost is set
	dirtyMu sync.Mutex
	dirty   map[string]bool // folders that had events since the last scan
	lost    bool            // events were lost: every folder is dirty
}

// entry is one call of Add.
type entry struct {
	files   []string
	folders []string // that lead to files, as of the last follow
	changed func()
}

// New returns a watch. Where the host has no inotify instance left, err says why, and w is
// still usable: it calls every function once a minute and at no other time. Run closes the
// inotify instance when it returns.
func New() (w *Watch, err error) {
	w = Unwatched()
	w.watcher, err = fsnotify.NewWatcher()
	return w, err
}

// Unwatched returns a watch without inotify, which calls every function once a minute.
func Unwatched() *Watch {
	return &Watch{
		entries: map[string]*entry{}, watches: map[string]bool{},
		wake: make(chan struct{}, 1), dirty: map[string]bool{},
	}
}

// Add calls changed whenever one of files may have changed, and at least once a minute, until
// Remove is called with the same name. The files need not exist. The goroutine of Run
// makes the calls, one at a time.
func (w *Watch) Add(name string, changed func(), files ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := &entry{files: files, changed: changed}
	w.entries[name] = e
	w.followLocked(e)
}

// Remove ends the calls for name. A call that has begun is not interrupted.
func (w *Watch) Remove(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.entries, name)
	w.pruneLocked()
}

// followLocked watches the folders that lead to the files of e, and reports whether these
// folders differ from the last time. A link may be replaced or a folder made between
// finding a folder and watching it, so followLocked looks again until nothing changes. If
// the folders still change after maxFollows, the scan of every minute finds the rest.
func (w *Watch) followLocked(e *entry) (moved bool) {
	before := e.folders
	for range maxFollows {
		var folders []string
		for _, file := range e.files {
			folders = append(folders, symlinkDirs(file)...)
		}
		settled := slices.Equal(folders, e.folders)
		e.folders = folders
		for _, folder := range folders {
			w.watches[folder] = true
			if w.watcher != nil {
				_ = w.watcher.Add(folder) // also one that is watched: the path may lead to a new folder
			}
		}
		if settled {
			break
		}
	}
	return !slices.Equal(before, e.folders)
}

// pruneLocked ends the watches of folders that lead to no entry's files.
func (w *Watch) pruneLocked() {
	used := map[string]bool{}
	for _, e := range w.entries {
		for _, folder := range e.folders {
			used[folder] = true
		}
	}
	for folder := range w.watches {
		if !used[folder] {
			delete(w.watches, folder)
			if w.watcher != nil {
				_ = w.watcher.Remove(folder) // it fails where the folder was removed
			}
		}
	}
}

// Run calls the functions until ctx ends: once no event has come for 300 ms, 800 ms after
// the first event at the latest, and every minute.
func (w *Watch) Run(ctx context.Context) {
	if w.watcher != nil {
		defer w.watcher.Close()
		go w.listen()
	}
	every := time.NewTicker(scanInterval)
	defer every.Stop()
	quiet := time.NewTimer(settle)
	quiet.Stop()
	var latest time.Time // scan then, even if events still come
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			if latest.IsZero() {
				latest = time.Now().Add(settleAtMost)
			}
			quiet.Reset(min(settle, time.Until(latest)))
		case <-quiet.C:
			latest = time.Time{}
			w.scan(w.takeDirty())
		case <-every.C:
			w.scan(nil)
		}
	}
}

// listen receives the watcher's events and errors until the watcher is closed. It must do
// nothing else: the watcher holds its lock while it sends an error, and Add of the watcher
// waits for that lock.
func (w *Watch) listen() {
	events, failures := w.watcher.Events, w.watcher.Errors
	for events != nil || failures != nil {
		select {
		case event, open := <-events:
			if !open {
				events = nil
				continue
			}
			w.note(event.Name)
		case _, open := <-failures:
			if !open {
				failures = nil
				continue
			}
			w.note("") // events may have been lost
		}
	}
}

// note marks the folder of name as dirty, and name too, which is a watched folder where that
// folder was removed. An empty name marks every folder.
func (w *Watch) note(name string) {
	w.dirtyMu.Lock()
	w.dirty[name], w.dirty[filepath.Dir(name)] = true, true
	w.lost = w.lost || name == ""
	w.dirtyMu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Again calls all functions soon, as if each file had changed.
func (w *Watch) Again() { w.note("") }

// takeDirty returns the dirty folders, nil for every folder, and marks none as dirty.
func (w *Watch) takeDirty() map[string]bool {
	w.dirtyMu.Lock()
	defer w.dirtyMu.Unlock()
	dirty := w.dirty
	if w.lost {
		dirty = nil
	}
	w.dirty, w.lost = map[string]bool{}, false
	return dirty
}

// scan calls the functions of the entries that have a dirty folder, or whose folders differ
// from the last scan. A nil dirty is every folder.
func (w *Watch) scan(dirty map[string]bool) {
	w.mu.Lock()
	var calls []func()
	for _, e := range w.entries {
		isDirty := dirty == nil || slices.ContainsFunc(e.folders, func(folder string) bool { return dirty[folder] })
		if w.followLocked(e) || isDirty {
			calls = append(calls, e.changed)
		}
	}
	w.pruneLocked()
	w.mu.Unlock()
	for _, call := range calls {
		call()
	}
}
