package telemt

import (
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a folder must be quiet before its change is reported. A package
// upgrade makes many events.
const settle = 200 * time.Millisecond

// watch reports folders in which something has changed. Its goroutine is run; the other
// methods are for one other goroutine. A watch that could not be made reports nothing.
type watch struct {
	changed chan string // the path of a folder
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

// setFolders watches the folder of the program, unless it is "", and those of the keepers.
// It stops watching all others.
func (w *watch) setFolders(binary string, keepers []*keeper) {
	if w.watcher == nil {
		return
	}
	want := map[string]bool{binary: binary != ""}
	for _, k := range keepers {
		want[string(k.folder)] = true
	}
	for folder := range w.watched {
		if !want[folder] {
			_ = w.watcher.Remove(folder) // an error means that the folder no longer exists
			delete(w.watched, folder)
		}
	}
	for folder, ok := range want {
		// Adding it again is needed if the folder was removed and made again.
		if ok && w.watcher.Add(folder) == nil {
			w.watched[folder] = true
		}
	}
}

// run reports the folders that have changed, once they are quiet.
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
