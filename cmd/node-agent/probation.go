package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
)

// A version of node-agent that takes over at a reload is on probation for a minute. The program before
// is kept as a copy in the state folder. A version that crashes on probation, or whose worker does, is
// given up: it executes the copy, and so does each later start of it, until another file is in its
// place.

const (
	probationTime = time.Minute
	probationFile = "upgrade.json"      // in the state folder
	keptProgram   = "node-agent.before" // likewise
	daemonCrash   = "daemon-crash.txt"  // in the runtime folder
	// programVariable tells a kept program at which path versions of node-agent are installed.
	programVariable = envPrefix + "PROGRAM"
	// stayVariable tells this program, which executes itself again, why another one could not be
	// executed: it does not try that again.
	stayVariable = envPrefix + "STAY"
	// reloadVariable tells this program, which executes itself again, to reload once it runs.
	reloadVariable = envPrefix + "RELOAD"
)

// programID tells a file from the one that was at its path before.
type programID struct {
	Device, Inode uint64
	Size          int64
	Modified      time.Time
}

func identifyProgram(path string) (programID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return programID{}, fmt.Errorf("look at the program: %w", err)
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	return programID{uint64(stat.Dev), stat.Ino, info.Size(), info.ModTime().UTC()}, nil //nolint:unconvert // Dev has 32 bits on some systems
}

// probation is what the file of that name has.
type probation struct {
	File    programID `json:"file"`             // the version on probation
	Program string    `json:"program"`          // its path
	Kept    string    `json:"kept,omitzero"`    // the path of the copy of the program before; empty for none
	Begun   bool      `json:"begun,omitzero"`   // the version has run
	Ended   string    `json:"ended,omitzero"`   // the error with which it ended
	GivenUp string    `json:"givenUp,omitzero"` // why; empty as long as it is not
	// Before is the version that gave way to File and was on probation itself. Where File never runs,
	// Before executes itself, and is on probation again.
	Before programID `json:"before,omitzero"`

	mu   *sync.Mutex // guards the file and the fields, from readProbation on
	path string
}

func readProbation(stateDir string) (*probation, error) {
	p := &probation{path: filepath.Join(stateDir, probationFile), mu: &sync.Mutex{}}
	raw, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, p)
	}
	if err != nil {
		return nil, fmt.Errorf("read which version is on probation: %w", err)
	}
	return p, nil
}

func (p *probation) write() error {
	raw, err := json.Marshal(p)
	if err == nil {
		err = renameio.WriteFile(p.path, raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write which version is on probation: %w", err)
	}
	return nil
}

// forget ends the probation, and removes the program before.
func (p *probation) forget() {
	_ = os.Remove(p.path)
	if p.Kept != "" {
		_ = os.Remove(p.Kept)
	}
}

// startProbation notes that file, which was tried at path, is to take over from this program, and keeps a
// copy of this one. A version that is on probation itself keeps the program before it.
func startProbation(stateDir, path string, file programID, log *slog.Logger) error {
	before, err := readProbation(stateDir)
	if err != nil {
		return err
	}
	next := &probation{File: file, Program: path, path: filepath.Join(stateDir, probationFile)}
	if own, err := identifyProgram(ownFile); err == nil && before != nil && before.File == own {
		next.Before = own
	}
	if before != nil && before.Kept != "" && exists(before.Kept) {
		next.Kept = before.Kept
	} else if next.Kept, err = keepProgram(stateDir, log); err != nil {
		return err
	}
	return next.write()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// keepProgram copies this program into the state folder, and returns the path; an empty one where no
// program can be executed there.
func keepProgram(stateDir string, log *slog.Logger) (string, error) {
	path, err := filepath.Abs(filepath.Join(stateDir, keptProgram))
	if err != nil {
		return "", fmt.Errorf("find the state folder: %w", err)
	}
	err = copyProgram(path)
	if err == nil {
		err = unix.Access(path, unix.X_OK) // EACCES where the file system is mounted with noexec
	}
	if errors.Is(err, unix.EACCES) {
		log.Warn("no program can be executed in the state folder: should the next version crash, this one can't go on", logkey.Path, path)
		_ = os.Remove(path)
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("keep a copy of the version that runs: %w", err)
	}
	return path, nil
}

func copyProgram(to string) error {
	from, err := os.Open(ownFile)
	if err != nil {
		return err //nolint:wrapcheck // keepProgram says what failed
	}
	defer from.Close()
	copied, err := renameio.NewPendingFile(to, renameio.WithPermissions(0o700))
	if err != nil {
		return err //nolint:wrapcheck // as above
	}
	defer copied.Cleanup() //nolint:errcheck // it does nothing once the file is in place
	if _, err := io.Copy(copied, from); err != nil {
		return err //nolint:wrapcheck // as above
	}
	return copied.CloseAtomicallyReplace() //nolint:wrapcheck // as above
}

// beginProbation reads what is known of this version. back is true where the program before is to
// go on: the version crashed on probation, now or earlier. crash has the words of a crash of the
// daemon before.
func beginProbation(stateDir, crash string, log *slog.Logger) (p *probation, back bool) {
	p, err := readProbation(stateDir)
	if err != nil {
		log.Error("no version is on probation", logkey.Error, err)
	}
	if p == nil {
		return nil, false
	}
	own, err := identifyProgram(ownFile)
	if kept, keptErr := identifyProgram(p.Kept); err == nil && keptErr == nil && own == kept {
		return p, false // the version before, which goes on
	}
	if err == nil && own == p.Before && !p.Begun {
		p.File, p.Before, p.Begun = own, programID{}, true
	}
	if err != nil || own != p.File {
		p.forget()
		return nil, false
	}
	if crash == "" {
		crash = p.Ended
	}
	switch {
	case p.GivenUp != "":
		return p, p.Kept != ""
	case p.Begun && crash != "":
		p.GivenUp = fmt.Sprintf("node-agent %s ended within a minute: %s", version, crash)
		log.Error("this version is given up, and the one before goes on", logkey.Reason, p.GivenUp)
	default:
		p.Begun, p.Ended = true, ""
	}
	if err := p.write(); err != nil {
		log.Error("go on without a probation", logkey.Error, err)
		return nil, false
	}
	return p, p.GivenUp != "" && p.Kept != ""
}

// givenUp says why the file at path was given up; empty where it was not.
func givenUp(stateDir, path string) string {
	p, err := readProbation(stateDir)
	if err != nil || p == nil || p.GivenUp == "" {
		return ""
	}
	if file, err := identifyProgram(path); err != nil || file != p.File {
		return ""
	}
	return fmt.Sprintf("%s; version %s goes on, until another file is at %s", p.GivenUp, version, path)
}

// pass ends the probation of this version once it has run for a minute.
func (p *probation) pass(ctx context.Context) {
	if p == nil {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(probationTime):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now, err := readProbation(filepath.Dir(p.path))
	if err == nil && now != nil && now.File != p.File {
		return // the next version is on probation, and this one gives way to it
	}
	if p.GivenUp == "" {
		p.forget()
	}
}

// end notes that the daemon ended with an error.
func (p *probation) end(err error) {
	if p == nil || err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if exists(p.path) && p.GivenUp == "" {
		p.Ended = err.Error()
		_ = p.write()
	}
}

// giveUp gives this version up, and tells whether there is a program that goes on.
func (p *probation) giveUp(reason string) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !exists(p.path) || p.Kept == "" || p.GivenUp != "" {
		return false // it has passed
	}
	p.GivenUp = reason
	return p.write() == nil
}

// watchCrashes lets Go write a crash of this daemon into a file, and returns the words of the crash of
// the daemon before; empty where it did not crash.
func watchCrashes(runtimeDir string, log *slog.Logger) (before string) {
	path := filepath.Join(runtimeDir, daemonCrash)
	if last, err := os.Open(path); err == nil {
		before = supervise.PanicWords(last)
		_ = last.Close()
	}
	if before != "" {
		log.Error("the daemon before crashed", logkey.Reason, before)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err == nil {
		err = debug.SetCrashOutput(file, debug.CrashOptions{})
		_ = file.Close() // SetCrashOutput has its own copy
	}
	if err != nil {
		log.Warn("a crash of the daemon is told nowhere but on standard error", logkey.Error, err)
	}
	return before
}
