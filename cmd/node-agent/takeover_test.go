package main

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"nodeagent/internal/counters"
	"nodeagent/store"
	"nodeagent/telemt/process"
)

// A telemt whose daemon has left no usable state ends: what it counts would be another client's.
func TestNoTelemtOutlivesTheState(t *testing.T) {
	s := settings{StateDir: t.TempDir(), RuntimeDir: t.TempDir()}
	telemts := filepath.Join(s.StateDir, telemtFolder)
	folder := process.FolderOf(telemts, "mtproto-1")
	if err := folder.Make(); err != nil {
		t.Fatal(err)
	}
	programs := t.TempDir() // the shell runs the file "run" with telemt's arguments
	if err := os.WriteFile(filepath.Join(programs, "run"), []byte("read forever\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	telemt := exec.Command("sh", "run", "--data-path", filepath.Join(string(folder), "data"), folder.Config())
	telemt.Dir = programs
	if _, err := telemt.StdinPipe(); err != nil { // never written to
		t.Fatal(err)
	}
	if err := telemt.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = telemt.Wait(); close(ended) }()
	t.Cleanup(func() { _ = telemt.Process.Kill(); <-ended })
	if found, err := process.Running(telemts); err != nil || found[folder] != telemt.Process.Pid {
		t.Fatalf("the telemts are %v, %v", found, err)
	}
	db, err := store.Open(s.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	file, err := counters.Create(filepath.Join(s.RuntimeDir, countersFile))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := takeOver(t.Context(), nil, db, file, s, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the telemt goes on")
	}
}
