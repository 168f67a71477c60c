package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/agent"
	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
	"nodeagent/store"
)

const (
	// tryStateCommand is what the daemon starts another version of the program as, before it
	// gives way to it.
	tryStateCommand = "try-state"
	// tryLimit bounds how long that may take.
	tryLimit = 20 * time.Second
	// maxTryWords bounds what is told of its words, in bytes.
	maxTryWords = 600
)

// errExecute is the cause of a context that ends so that the daemon executes the program on the
// disk.
var errExecute = fmt.Errorf("another version of node-agent is on the disk: %w", supervise.ErrLeave)

// errGoBack is the cause of a context that ends so that the daemon executes the program that was kept
// of the version before.
var errGoBack = fmt.Errorf("this version of node-agent is given up: %w", supervise.ErrLeave)

// installedProgram is the path at which versions of node-agent are installed. A program that was kept
// runs from another one.
func installedProgram() (string, error) {
	if path := os.Getenv(programVariable); path != "" {
		return path, nil
	}
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the program: %w", err)
	}
	return path, nil
}

// newProgram returns the path from which this program was started, where another file stands there
// by now.
func newProgram() (path string, is bool) {
	path, err := installedProgram()
	if err != nil {
		return "", false
	}
	now, err1 := os.Stat(path)
	ours, err2 := os.Stat(ownFile)
	return path, err1 == nil && err2 == nil && !os.SameFile(now, ours)
}

// tryProgram runs another version of the program on a copy of the state, as far as a daemon can be
// tried without serving. An error says why it can't take over.
func tryProgram(ctx context.Context, path string, limit time.Duration, db *store.Store, stateDir string) error {
	dir, err := os.MkdirTemp(stateDir, "upgrade-*")
	if err != nil {
		return fmt.Errorf("make a folder for a copy of the state: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := copySettled(db, dir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	try := exec.CommandContext(ctx, path, append([]string{tryStateCommand, "--state-dir", dir}, configFlag(os.Args)...)...)
	try.WaitDelay = time.Second
	out, err := try.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s does not end within %s", path, tryStateCommand, limit)
	}
	if err != nil {
		words := strings.ToValidUTF8(strings.TrimSpace(string(out)), "?")
		return fmt.Errorf("%s %s: %w: %q", path, tryStateCommand, err, words[:min(len(words), maxTryWords)])
	}
	return nil
}

// copySettled writes a copy of the state into dir as this version leaves it to the next one: with the
// configuration as a whole. Another version may not read each change that this one stores beside it. The
// state itself, and the agent that runs on it, are not held up by that.
func copySettled(db *store.Store, dir string) error {
	if err := db.Copy(dir); err != nil {
		return err
	}
	copied, err := store.Open(dir)
	if err != nil {
		return fmt.Errorf("open a copy of the state: %w", err)
	}
	return errors.Join(agent.SettleStore(copied, time.Now(), nil), copied.Close())
}

// configFlag returns the flag --config of a command line, in the form that another command takes.
func configFlag(args []string) []string {
	for i, arg := range args {
		if value, is := strings.CutPrefix(arg, "--config="); is {
			return []string{"--config", value}
		}
		if arg == "--config" && i+1 < len(args) {
			return []string{"--config", args[i+1]}
		}
	}
	return nil
}

// upgrade gives way to another version of the program on the disk, if there is one that can take
// over, and tells whether it does.
func (r *running) upgrade(ctx context.Context, db *store.Store) bool {
	path, is := newProgram()
	if !is {
		r.agent.UpgradeFailed(nil)
		return false
	}
	if given := givenUp(r.settings.StateDir, path); given != "" {
		r.agent.UpgradeFailed(errors.New(given))
		return false
	}
	file, err := identifyProgram(path) // before it is tried: execute runs no other file
	if err == nil {
		err = tryProgram(ctx, path, tryLimit, db, r.settings.StateDir)
	}
	if err == nil {
		err = startProbation(r.settings.StateDir, path, file, r.log)
	}
	if err != nil {
		r.log.Error("another version of node-agent is on the disk and can't take over; this one goes on", logkey.Error, err)
		r.agent.UpgradeFailed(fmt.Errorf("another version of node-agent is on the disk and can't take over; version %s goes on: %w", version, err))
		return false
	}
	r.log.Info("another version of node-agent is on the disk and takes over", logkey.Path, path)
	r.leave(errExecute)
	return true
}

// onProbation notes how this version began. It returns errGoBack where the version before is to go on.
func (r *running) onProbation(ctx context.Context, db *store.Store) error {
	for _, left := range leftovers(r.settings.StateDir) {
		_ = os.RemoveAll(left)
	}
	p, back := beginProbation(r.settings.StateDir, watchCrashes(r.settings.RuntimeDir, r.log), r.log)
	stay := os.Getenv(stayVariable)
	_ = os.Unsetenv(stayVariable) // it is for this start alone
	if stay != "" && !back {
		r.noWayBack = fmt.Errorf("%s; version %s goes on", stay, version)
	}
	if back {
		err := errors.New(stay)
		if stay == "" {
			err = goBack(ctx, p, db, r.settings.StateDir)
		}
		if errors.Is(err, errGoBack) {
			return err
		}
		r.log.Error("this version was given up, and goes on all the same", logkey.Error, err)
		r.noWayBack = fmt.Errorf("%s; version %s goes on all the same: %w", p.GivenUp, version, err)
		p = nil
	}
	r.probation = p
	return nil
}

// leftovers are the copies of the state of a try that did not end, and the files beside the store that
// were not written to their end.
func leftovers(stateDir string) []string {
	copies, _ := filepath.Glob(filepath.Join(stateDir, "upgrade-*")) // the pattern is valid
	return append(copies, store.Unfinished(stateDir)...)
}

// tellGivenUp notes and reports that this version goes on in the place of one that was given up, or
// although it was given up itself.
func (r *running) tellGivenUp() {
	if r.noWayBack != nil {
		r.agent.UpgradeFailed(r.noWayBack)
		return
	}
	if path, is := newProgram(); is {
		if given := givenUp(r.settings.StateDir, path); given != "" {
			r.agent.UpgradeFailed(errors.New(given))
		}
	}
}

// unfit gives this version up where the worker that it has brought crashes while it is on probation.
func (r *running) unfit(reason string) {
	if r.probation.giveUp(fmt.Sprintf("the xray worker of node-agent %s ended within a minute: %s", version, reason)) {
		r.log.Error("this version is given up, and the one before goes on", logkey.Error, reason)
		r.leave(errGoBack)
	}
}

// goBack executes the kept program where that can go on with the state. The program before reads a whole
// configuration, but perhaps not each change that this one stores.
func goBack(ctx context.Context, p *probation, db *store.Store, stateDir string) error {
	if err := agent.SettleStore(db, time.Now(), nil); err != nil {
		p.forget()
		return fmt.Errorf("the version before can't go on: %w", err)
	}
	if err := tryProgram(ctx, p.Kept, tryLimit, db, stateDir); err != nil {
		p.forget()
		return fmt.Errorf("the version before can't go on either: %w", err)
	}
	return errGoBack
}

// execute lets another program take the place of this one, under the same process id: the one on the
// disk, or with errGoBack the one that was kept. There are three other cases:
//   - The file on the disk is no longer the one that was tried. This program executes itself and reloads,
//     which tries the new file. Each further turn needs another file.
//   - The other program can't be executed. This program executes itself, and reports why.
//   - This program can't be executed either. execute returns the error.
//
// execute does nothing where stopped, the context that ends at SIGTERM and SIGINT, has ended.
func execute(stopped context.Context, why error, stateDir string) error {
	// Signals that come before the program hears them must not end it.
	signal.Ignore(syscall.SIGHUP, syscall.SIGUSR2)
	// From here on these two end the process: Go would keep them for nobody.
	signal.Reset(syscall.SIGTERM, syscall.SIGINT)
	if stopped.Err() != nil {
		return nil //nolint:nilerr // that is no failure
	}
	path, err := installedProgram()
	env := os.Environ()
	var p *probation
	if err == nil {
		p, err = readProbation(stateDir)
	}
	switch {
	case err != nil || p == nil:
	case errors.Is(why, errGoBack):
		env, path = append(env, programVariable+"="+path), p.Kept
	default:
		if file, err := identifyProgram(path); err == nil && file != p.File {
			return fmt.Errorf("execute node-agent again: %w", syscall.Exec(ownFile, os.Args, append(env, reloadVariable+"=1")))
		}
	}
	if err == nil {
		err = syscall.Exec(path, os.Args, env)
	}
	err = fmt.Errorf("execute %s: %w", path, err)
	return errors.Join(err, syscall.Exec(ownFile, os.Args, append(os.Environ(), stayVariable+"="+err.Error())))
}

func newTryStateCmd(std streams) *cobra.Command {
	var flags settingFlags
	cmd := &cobra.Command{
		Use:    tryStateCommand,
		Short:  "Try whether this version can go on with a state; a daemon starts this command itself, on a copy",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			s, err := flags.load()
			if err != nil {
				return err
			}
			if _, _, err := s.logger(std); err != nil {
				return err
			}
			db, err := store.Open(s.StateDir)
			if err != nil {
				return err
			}
			defer db.Close()
			if _, err := db.Identity(); err != nil {
				return err
			}
			history, err := db.History()
			if err != nil {
				return err
			}
			return agent.CheckKept(history)
		},
	}
	flags.add(cmd.Flags(), "config", "state-dir")
	return cmd
}
