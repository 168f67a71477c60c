package xray

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// The daemon hands a worker the files that its configurations name as certificates, if they are
// regular files of a sane size in PEM, and no others.
func TestHandedFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pem := "-----BEGIN CERTIFICATE-----\n"
	certificate, key := write("certificate", pem), write("key", "-----BEGIN PRIVATE KEY-----\n")
	nested, unnamed, database := write("nested", pem), write("unnamed", pem), write("node.db", "\x00secret")
	large, pipe, missing := write("large", pem+strings.Repeat("x", mostHanded)), filepath.Join(dir, "pipe"), filepath.Join(dir, "missing")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	quote := func(text string) string {
		raw, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	h := newHandedFiles()
	h.name(&state.Operation{Inbound: &state.Inbound{Config: json.RawMessage(`{"a":{"tlsSettings":{"certificates":[{"certificateFile":` + quote(certificate) + `,"KEYFILE":` + quote(key) + `}]}},
		"b":[{"certificateFile":` + quote(database) + `},{"certificateFile":` + quote(large) + `},{"certificateFile":` + quote(pipe) + `},{"certificateFile":"/dev/zero"},{"keyFile":` + quote(missing) + `}]}`)}})
	h.name(&state.Operation{Outbound: &state.Outbound{Config: json.RawMessage(`{"xhttpSettings":{"downloadSettings":{"tlsSettings":{"certificates":[{"certificateFile":` + quote(nested) + `}]}}}}`)}})
	h.name(&state.Operation{})
	for path, says := range map[string]string{
		certificate: "", key: "", nested: "", unnamed: "no configuration", database: "no certificate and no key", large: "1048576 at most",
		pipe: "want a regular file", "/dev/zero": "want a regular file", missing: "no such file", dir: "no configuration",
	} {
		got := h.read(ipc.ReadFile{ID: 7, Path: path})
		if got.ID != 7 || says == "" && (got.Error != "" || len(got.Contents) == 0) || says != "" && (!strings.Contains(got.Error, says) || got.Contents != nil) {
			t.Errorf("%s: %+v", path, got)
		}
		if got.Missing != (path == missing) {
			t.Errorf("%s: missing is %v", path, got.Missing)
		}
	}
}

// A file on a mount that hangs keeps no place for ever.
func TestHandedFileThatHangs(t *testing.T) {
	fuse, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("NOT RUN: no file system that hangs can be made: %v", err)
	}
	dir := t.TempDir()
	if err := unix.Mount("test", dir, "fuse", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse)); err != nil {
		_ = unix.Close(fuse)
		t.Skipf("NOT RUN: no file system that hangs can be mounted: %v", err)
	}
	t.Cleanup(func() {
		_ = unix.Close(fuse) // a reader that waits gets an error
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "certificate") // nobody answers the kernel
	h := newHandedFiles()
	h.named[path] = true
	for _, says := range []string{"did not answer within", "has not answered the last read yet"} {
		answer := make(chan ipc.File, 1)
		go func() { answer <- h.read(ipc.ReadFile{Path: path}) }()
		select {
		case got := <-answer:
			if !strings.Contains(got.Error, says) {
				t.Errorf("the answer is %+v, want %q", got, says)
			}
		case <-time.After(time.Minute):
			t.Fatal("the daemon hangs with the file")
		}
	}
}
