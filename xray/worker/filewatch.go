package worker

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// watchSettle is how long a folder has to be quiet: a renewal is several
	// files.
	watchSettle = 300 * time.Millisecond
	// watchAtMost is how long after the first event the files are looked at, quiet
	// or not: a folder may have others that write in it all the time.
	watchAtMost = 800 * time.Millisecond
	// watchAnyway is how often all files are looked at, events or not: a folder
	// may have been replaced, or be on a file system that tells nothing.
	watchAnyway = time.Minute
)

// fileWatch calls somebody when files may have changed. It watches their folders:
// certbot and Kubernetes replace links in them.
type fileWatch struct {
	watcher *fsnotify.Watcher // nil where the host has none left

	mu    sync.Mutex
	files map[string]watched // by name

	heard   chan struct{} // one slot: something is dirty
	dirtyMu sync.Mutex
	dirty   map[string]bool // folders with events since the last look
	all     bool            // events were lost
}

type watched struct {
	folders []string
	changed func()
}

// newFileWatch returns a watch that looks every minute alone where the host can't
// tell events; err says why then.
func newFileWatch() (w *fileWatch, err error) {
	w = &fileWatch{files: map[string]watched{}, heard: make(chan struct{}, 1), dirty: map[string]bool{}}
	w.watcher, err = fsnotify.NewWatcher()
	return w, err
}

func (w *fileWatch) add(name string, changed func(), files ...string) {
	entry := watched{changed: changed}
	for _, file := range files {
		entry.folders = append(entry.folders, filepath.Dir(file))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[name] = entry
	for _, folder := range entry.folders {
		if w.watcher != nil {
			_ = w.watcher.Add(folder) // one that is not there is looked at every minute
		}
	}
}

func (w *fileWatch) remove(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	gone := w.files[name].folders
	delete(w.files, name)
	for _, folder := range gone {
		used := slices.ContainsFunc(slices.Collect(maps.Values(w.files)), func(o watched) bool { return slices.Contains(o.folders, folder) })
		if !used && w.watcher != nil {
			_ = w.watcher.Remove(folder)
		}
	}
}

// run looks when folders have become quiet, or are not soon, and every
// minute, until ctx ends.
func (w *fileWatch) run(ctx context.Context) {
	if w.watcher != nil {
		defer w.watcher.Close()
		go w.listen()
	}
	anyway := time.NewTicker(watchAnyway)
	defer anyway.Stop()
	quiet := time.NewTimer(watchSettle)
	quiet.Stop()
	var latest time.Time // when to look whatever comes
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.heard:
			if latest.IsZero() {
				latest = time.Now().Add(watchAtMost)
			}
			quiet.Reset(min(watchSettle, time.Until(latest)))
		case <-quiet.C:
			latest = time.Time{}
			w.look(w.takeDirty())
		case <-anyway.C:
			w.look(nil)
		}
	}
}

// listen takes what the watcher tells until it is closed. It does nothing else: the
// watcher holds its lock while it tells an error, and add would wait for that.
func (w *fileWatch) listen() {
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
			w.note("") // events may be lost
		}
	}
}

// note makes a file's folder dirty, all of them for no name.
func (w *fileWatch) note(name string) {
	w.dirtyMu.Lock()
	w.dirty[filepath.Dir(name)] = true
	w.all = w.all || name == ""
	w.dirtyMu.Unlock()
	select {
	case w.heard <- struct{}{}:
	default:
	}
}

// takeDirty returns nil for all.
func (w *fileWatch) takeDirty() map[string]bool {
	w.dirtyMu.Lock()
	defer w.dirtyMu.Unlock()
	dirty := w.dirty
	if w.all {
		dirty = nil
	}
	w.dirty, w.all = map[string]bool{}, false
	return dirty
}

// look calls those whose folders are dirty, nil for all.
func (w *fileWatch) look(dirty map[string]bool) {
	w.mu.Lock()
	var calls []func()
	for _, f := range w.files {
		if dirty == nil || slices.ContainsFunc(f.folders, func(folder string) bool { return dirty[folder] }) {
			calls = append(calls, f.changed)
		}
		for _, folder := range f.folders {
			if w.watcher != nil {
				_ = w.watcher.Add(folder) // again: it may be another one now
			}
		}
	}
	w.mu.Unlock()
	for _, call := range calls {
		call()
	}
}
