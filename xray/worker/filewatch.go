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
}

type watched struct {
	folders []string
	changed func()
}

// newFileWatch returns a watch that looks every minute alone where the host can't
// tell events; err says why then.
func newFileWatch() (w *fileWatch, err error) {
	w = &fileWatch{files: map[string]watched{}}
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

// run looks when folders have become quiet, and every minute, until ctx ends.
func (w *fileWatch) run(ctx context.Context) {
	var events chan fsnotify.Event
	var failures chan error
	if w.watcher != nil {
		defer w.watcher.Close()
		events, failures = w.watcher.Events, w.watcher.Errors
	}
	anyway := time.NewTicker(watchAnyway)
	defer anyway.Stop()
	quiet := time.NewTimer(watchSettle)
	quiet.Stop()
	dirty := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-events:
			dirty[filepath.Dir(event.Name)] = true
			quiet.Reset(watchSettle)
		case err := <-failures:
			if err != nil { // events were lost
				w.look(nil)
			}
		case <-quiet.C:
			w.look(dirty)
			clear(dirty)
		case <-anyway.C:
			w.look(nil)
		}
	}
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
