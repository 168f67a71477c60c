package xray

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"nodeagent/internal/hostfile"
	"nodeagent/internal/supervise"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

const (
	// mostHanded is the size in bytes of the largest file that is handed to a worker.
	mostHanded = 1 << 20
	// handedAtOnce is how many files one worker has read at the same time. A file on a mount that
	// hangs holds one of them until its time is over.
	handedAtOnce = 16
)

// handedFiles are the files whose contents a worker may ask for: those of certificates and keys
// that its operations named. Any goroutine may use it; mu guards named.
type handedFiles struct {
	mu     sync.Mutex
	named  map[string]bool
	places chan struct{} // one for each file that is read now
}

func newHandedFiles() *handedFiles {
	return &handedFiles{named: map[string]bool{}, places: make(chan struct{}, handedAtOnce)}
}

// name lets the worker ask for the files that the operation names.
func (h *handedFiles) name(op *state.Operation) {
	var configs []json.RawMessage
	if op.Inbound != nil {
		configs = append(configs, op.Inbound.Config)
	}
	if op.Outbound != nil {
		configs = append(configs, op.Outbound.Config)
	}
	for _, config := range configs {
		var tree any
		// Most configurations name no file, and an inbound's may be large.
		if lower := bytes.ToLower(config); !bytes.Contains(lower, []byte("file")) || json.Unmarshal(config, &tree) != nil {
			continue
		}
		h.mu.Lock()
		addNamed(h.named, tree)
		h.mu.Unlock()
	}
}

// nameAll lets the worker ask for the files that the state names.
func (h *handedFiles) nameAll(s state.State) {
	for _, in := range s.Inbounds {
		h.name(&state.Operation{Inbound: &in})
	}
	for i := range s.Outbounds {
		h.name(&state.Operation{Outbound: &s.Outbounds[i]})
	}
}

// addNamed adds what the members certificateFile and keyFile name, in any place and in any case
// of their letters, as xray-core reads them.
func addNamed(named map[string]bool, tree any) {
	switch v := tree.(type) {
	case []any:
		for _, item := range v {
			addNamed(named, item)
		}
	case map[string]any:
		for member, item := range v {
			if path, is := item.(string); is && (strings.EqualFold(member, "certificateFile") || strings.EqualFold(member, "keyFile")) {
				named[path] = true
			} else {
				addNamed(named, item)
			}
		}
	}
}

// read answers a worker. It may wait for a file system.
func (h *handedFiles) read(ask ipc.ReadFile) ipc.File {
	h.mu.Lock()
	named := h.named[ask.Path]
	h.mu.Unlock()
	if !named {
		return ipc.File{ID: ask.ID, Error: "no configuration of this worker names the file"}
	}
	contents, err := readHanded(ask.Path)
	if err != nil {
		return ipc.File{ID: ask.ID, Error: err.Error(), Missing: errors.Is(err, fs.ErrNotExist)}
	}
	return ipc.File{ID: ask.ID, Contents: contents}
}

// handedReader remembers the files that hang, for all workers: a file that hangs keeps a place for
// some seconds once, and not each time that it is asked for.
var handedReader = hostfile.New(mostHanded)

// readHanded reads a file in PEM. Any other one, such as the daemon's state, is handed to nobody.
func readHanded(path string) ([]byte, error) {
	contents, err := handedReader.Read(path)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(contents, []byte("-----BEGIN ")) {
		return nil, fmt.Errorf("read %s: it has no certificate and no key in PEM", path)
	}
	return contents, nil
}

// hand answers a worker that asks for a file.
func (w *workerClient) hand(ask ipc.ReadFile) {
	answer := ipc.File{ID: ask.ID, Error: "too many files are read now; one may be on a file system that hangs"}
	select {
	case w.files.places <- struct{}{}:
		answer = w.files.read(ask)
		<-w.files.places
	default:
	}
	_ = w.conn.Write(ipc.Request{File: &answer}) // a worker that does not read is ended by the next call
}

// foldersOf returns the folders that a worker needs for the state, besides the ones of every
// worker.
func (e *Engine) foldersOf(s state.State) (read, sockets []string) {
	read = geoFolders(e.config.Worker)
	for _, tag := range s.Tags() {
		in := s.Inbounds[tag]
		for _, b := range unixSockets(in) {
			if strings.HasPrefix(b.Path, "/") {
				sockets = append(sockets, filepath.Dir(b.Path))
			}
		}
		if pages := in.View().Stream.Pages(); pages != "" {
			read = append(read, pages)
		}
	}
	return read, sockets
}

// geoFolders returns the folders in which a worker looks for geo files, and those to which links with
// the names of geo files lead from there. A worker that started before one of them was there, or was
// replaced, can't read the files: so the engine has to know them.
func geoFolders(spec supervise.Spec) []string {
	folders := []string{"/usr/local/share/xray", "/usr/share/xray", "/opt/share/xray"} // common/platform/others.go:13 of xray-core
	for _, variable := range spec.Env {
		if folder, is := strings.CutPrefix(variable, "XRAY_LOCATION_ASSET="); is && folder != "" {
			folders = append(folders, folder)
		}
	}
	all := slices.Clone(folders)
	for _, folder := range folders {
		links, _ := filepath.Glob(filepath.Join(folder, "*.dat")) // the pattern is a good one, or the folder's name is strange
		for _, link := range links {
			if file, err := filepath.EvalSymlinks(link); err == nil && filepath.Dir(file) != folder {
				all = append(all, filepath.Dir(file))
			}
		}
	}
	return all
}

// folderID tells a folder from another one that took its place.
type folderID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// identify returns the folders that exist.
func identify(folders ...string) map[string]folderID {
	all := map[string]folderID{}
	for _, folder := range folders {
		var stat syscall.Stat_t
		if syscall.Stat(folder, &stat) == nil {
			all[folder] = folderID{stat.Dev, stat.Ino}
		}
	}
	return all
}

// needsOtherFolders returns why the worker can't run a state that needs the folders: it is confined to
// those that were there when it started. Empty: it can.
func (w *workerClient) needsOtherFolders(read, sockets []string) string {
	for folder, id := range identify(append(read, sockets...)...) {
		if w.kept.Folders[folder] != id {
			return fmt.Sprintf("the worker is confined to its folders, and %s is another one", folder)
		}
	}
	return ""
}
