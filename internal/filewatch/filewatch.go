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
	// watchSettle is how long a folder has to be quiet: a renewal is several
	// files.
	watchSettle = 300 * time.Millisecond
	// watchAtMost is how long after the first event the files are looked at, quiet
	// or not: a folder may have others that write in it all the time.
	watchAtMost = 800 * time.Millisecond
	// watchAnyway is how often all files are looked at, events or not: a folder
	// may have been replaced, or be on a file system that tells nothing.
	watchAnyway = time.Minute
	// followTurns is how often the links of a file are followed to find where they
	// stay.
	followTurns = 5
)

// Watch calls a function when files may have changed. It watches the folders of the
// files and of all symbolic links that lead to them: certbot and Kubernetes turn links, and
// other programs write where a link leads to. All methods may be called by any goroutine.
type Watch struct {
	watcher *fsnotify.Watcher // nil where the host has none left

	mu      sync.Mutex
	files   map[string]*watched // by name
	watches map[string]bool     // folders that the watcher was given

	heard   chan struct{} // one slot: something is dirty
	dirtyMu sync.Mutex
	dirty   map[string]bool // folders with events since the last look
	all     bool            // events were lost
}

type watched struct {
	files   []string
	folders []string // as of the last look
	changed func()
}

// New returns a watch that looks only once a minute if the host has no inotify watcher
// left; err then says why, and w is still usable. The watcher is closed when Run returns.
func New() (w *Watch, err error) {
	w = Unwatched()
	w.watcher, err = fsnotify.NewWatcher()
	return w, err
}

// Unwatched returns a watch that looks only once a minute.
func Unwatched() *Watch {
	return &Watch{
		files: map[string]*watched{}, watches: map[string]bool{},
		heard: make(chan struct{}, 1), dirty: map[string]bool{},
	}
}

// Add calls changed whenever one of files may have changed, and at least once a minute, until
// Remove is called with the same name. The files need not exist. The goroutine of Run
// makes the calls, one at a time.
func (w *Watch) Add(name string, changed func(), files ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	entry := &watched{files: files, changed: changed}
	w.files[name] = entry
	w.follow(entry)
}

// Remove ends the calls for name. One that has begun goes on.
func (w *Watch) Remove(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.files, name)
	w.prune()
}

// follow watches the folders of an entry's files, and tells whether they are others
// than before. Links may turn and folders come meanwhile; what still does after some
// turns is looked at every minute.
func (w *Watch) follow(entry *watched) (others bool) {
	before := entry.folders
	for range followTurns {
		var folders []string
		for _, file := range entry.files {
			folders = append(folders, symlinkDirs(file)...)
		}
		settled := slices.Equal(folders, entry.folders)
		entry.folders = folders
		for _, folder := range folders {
			w.watches[folder] = true
			if w.watcher != nil {
				_ = w.watcher.Add(folder) // again: it may be another one now
			}
		}
		if settled {
			break
		}
	}
	return !slices.Equal(before, entry.folders)
}

// prune ends the watches of folders that nobody has any more.
func (w *Watch) prune() {
	used := map[string]bool{}
	for _, entry := range w.files {
		for _, folder := range entry.folders {
			used[folder] = true
		}
	}
	for folder := range w.watches {
		if !used[folder] {
			delete(w.watches, folder)
			if w.watcher != nil {
				_ = w.watcher.Remove(folder) // or it is gone
			}
		}
	}
}

// Run looks when the folders have become quiet, 800 ms after the first event at the latest,
// and every minute, until ctx ends.
func (w *Watch) Run(ctx context.Context) {
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
			w.note("") // events may be lost
		}
	}
}

// note makes a file's folder dirty, and it itself should it be a watched folder that
// is gone; all of them for no name.
func (w *Watch) note(name string) {
	w.dirtyMu.Lock()
	w.dirty[name], w.dirty[filepath.Dir(name)] = true, true
	w.all = w.all || name == ""
	w.dirtyMu.Unlock()
	select {
	case w.heard <- struct{}{}:
	default:
	}
}

// takeDirty returns nil for all.
func (w *Watch) takeDirty() map[string]bool {
	w.dirtyMu.Lock()
	defer w.dirtyMu.Unlock()
	dirty := w.dirty
	if w.all {
		dirty = nil
	}
	w.dirty, w.all = map[string]bool{}, false
	return dirty
}

// look calls those whose folders are dirty or others than before, nil for all.
func (w *Watch) look(dirty map[string]bool) {
	w.mu.Lock()
	var calls []func()
	for _, entry := range w.files {
		isDirty := dirty == nil || slices.ContainsFunc(entry.folders, func(folder string) bool { return dirty[folder] })
		if w.follow(entry) || isDirty {
			calls = append(calls, entry.changed)
		}
	}
	w.prune()
	w.mu.Unlock()
	for _, call := range calls {
		call()
	}
}
