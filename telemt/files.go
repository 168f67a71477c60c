package telemt

import (
	"context"

	"nodeagent/internal/filewatch"
)

// programName is the entry of telemt's program in the watch. No path of a file is the same.
const programName = "program"

// watchFiles watches telemt's program and the files of all keepers. It stops watching the files of
// keepers that are gone; watched has the entries, by name. Only Run's goroutine calls it.
func (e *Engine) watchFiles(ctx context.Context, watch *filewatch.Watch, watched map[string]bool) {
	want := map[string]bool{}
	add := func(name, file string, changed func()) {
		want[name] = true
		if !watched[name] || name == programName { // the path of the program may be another one now
			watch.Add(name, changed, file)
			watched[name] = true
		}
	}
	if file := e.binary.Path(); file != "" {
		add(programName, file, func() { e.goroutines.Go(func() { e.programChanged(ctx) }) })
	}
	for _, k := range e.allKeepers() {
		file := k.folder.Config()
		add(file, file, func() { e.goroutines.Go(func() { e.fileChanged(ctx, file) }) })
	}
	for name := range watched {
		if !want[name] {
			watch.Remove(name)
			delete(watched, name)
		}
	}
}

// programChanged tells the keepers where telemt's program is another one than at the last call. The
// watch calls also when another file of the folder changes, and once a minute.
func (e *Engine) programChanged(ctx context.Context) {
	if !e.binary.Replaced() {
		return
	}
	for _, k := range e.allKeepers() {
		_ = k.do(ctx, k.binaryChanged)
	}
}

// fileChanged tells the keeper of telemt's file that the file may have changed.
func (e *Engine) fileChanged(ctx context.Context, file string) {
	for _, k := range e.allKeepers() {
		if k.folder.Config() == file {
			_ = k.do(ctx, func() error { k.repairFile(); return nil })
		}
	}
}
