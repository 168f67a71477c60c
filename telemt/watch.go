package telemt

import (
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a folder has to be quiet before somebody looks at it: an
// upgrade is many events.
const settle = 200 * time.Millisecond

// watch tells which folders change. A nil watch tells nothing.
type watch struct {
	changed chan string
	watcher *fsnotify.Watcher
	watched map[string]bool
	done    chan struct{}
}

func newWatch(log *slog.Logger) (*watch, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return &watch{}, err
	}
	w := &watch{changed: make(chan string), watcher: watcher, watched: map[string]bool{}, done: make(chan struct{})}
	go w.run(log)
	return w, nil
}

// folders watches these, and those no more that it watched before.
func (w *watch) folders(binary string, keepers []*keeper) {
	if w.watcher == nil {
		return
	}
	want := map[string]bool{binary: binary != ""}
	for _, k := range keepers {
		want[string(k.folder)] = true
	}
	for folder := range w.watched {
		if !want[folder] {
			_ = w.watcher.Remove(folder) // it may be gone
			delete(w.watched, folder)
		}
	}
	for folder, is := range want {
		if is && w.watcher.Add(folder) == nil { // again: it may be another one now
			w.watched[folder] = true
		}
	}
}

// run tells each folder once it is quiet.
func (w *watch) run(log *slog.Logger) {
	dirty := map[string]bool{}
	quiet := time.NewTimer(settle)
	quiet.Stop()
	for {
		select {
		case <-w.done:
			return
		case event, open := <-w.watcher.Events:
			if !open {
				return
			}
			dirty[filepath.Dir(event.Name)] = true
			quiet.Reset(settle)
		case err, open := <-w.watcher.Errors:
			if !open {
				return
			}
			log.Warn("watch telemt's files", "error", err)
		case <-quiet.C:
			for folder := range dirty {
				select {
				case w.changed <- folder:
				case <-w.done:
					return
				}
			}
			clear(dirty)
		}
	}
}

func (w *watch) close() {
	if w.watcher == nil {
		return
	}
	close(w.done)
	_ = w.watcher.Close()
}
