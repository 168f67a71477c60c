package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"nodeagent/internal/supervise"
	"nodeagent/telemt/api"
	"nodeagent/telemt/service"
)

// adoptTimeout bounds how long a telemt that runs already is asked who it is.
const adoptTimeout = 5 * time.Second

// arguments are those with which telemt is started in a folder. No other process has them.
func (f Folder) arguments() []string {
	return []string{"run", "--data-path", f.data(), f.Config()}
}

// Running returns the telemts that a daemon has started in folders below stateDir: their process ids
// by folder. It reads /proc.
func Running(stateDir string) (map[Folder]int, error) {
	owner, err := ownerOf(stateDir)
	if err != nil {
		return nil, nil //nolint:nilerr // there is no folder, and no daemon has run
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for telemts of the daemon before: %w", err)
	}
	found := map[Folder]int{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if folder := folderOf(pid); folder != "" && filepath.Dir(string(folder)) == filepath.Clean(stateDir) {
			if uid, err := ownerOf(filepath.Join("/proc", entry.Name())); err == nil && uid == owner {
				found[folder] = pid
			}
		}
	}
	return found, nil
}

func ownerOf(path string) (uint32, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err //nolint:wrapcheck // it is not shown
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	return stat.Uid, nil
}

// folderOf returns the folder in which a process is a telemt, by its command line; an empty one for
// every other process.
func folderOf(pid int) Folder {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	words := strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
	folder := Folder(filepath.Dir(words[len(words)-1]))
	if !slices.Equal(words[1:], folder.arguments()) {
		return ""
	}
	return folder
}

// hold watches the process with an id that runs in a folder.
func hold(pid int, folder Folder) (*supervise.Process, error) {
	p, err := supervise.Adopt(pid)
	if err != nil {
		return nil, err
	}
	if folderOf(pid) != folder { // looked at again, once nothing else can get the id
		return nil, fmt.Errorf("process %d is no telemt of %s", pid, folder)
	}
	return p, nil
}

// EndAll ends all telemts that run in folders below stateDir, and returns how many.
func EndAll(stateDir string) (ended int, err error) {
	found, err := Running(stateDir)
	var ending sync.WaitGroup
	for folder, pid := range found {
		ending.Go(func() { End(pid, folder) })
	}
	ending.Wait()
	return len(found), err
}

// End ends the telemt with that process id, if it still runs in the folder.
func End(pid int, folder Folder) {
	if p, err := hold(pid, folder); err == nil {
		p.Stop(stopGrace)
	}
}

// Known is what a daemon knows of a telemt that an earlier daemon has started.
type Known struct {
	PID      int
	Release  Release
	Settings service.NodeSettings
	Started  time.Time
}

// Adopt goes on with a telemt that runs already in a folder. It is the process that was started with
// these settings: it listens on the addresses that were chosen for it, and knows the password.
func Adopt(ctx context.Context, known Known, folder Folder, running service.Desired, log *slog.Logger) (*Process, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, adoptTimeout, fmt.Errorf("no answer within %s", adoptTimeout))
	defer cancel()
	held, err := hold(known.PID, folder)
	if err != nil {
		return nil, err
	}
	p := &Process{
		Process: held, Release: known.Release, Settings: known.Settings, Started: known.Started, Output: newOutput(running),
		API: api.New(api.Endpoints{API: known.Settings.APIAddr, Metrics: known.Settings.MetricsAddr, Authorization: known.Settings.APIAuthorization}),
	}
	for _, address := range []string{known.Settings.APIAddr, known.Settings.MetricsAddr} {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, fmt.Errorf("read the address of a telemt: %w", err)
		}
		if own, err := p.Listens(at); err == nil && !own {
			return nil, fmt.Errorf("it does not listen on %s", at)
		}
	}
	_, err = p.API.ReloadCount(ctx)
	if err == nil {
		_, err = p.API.Metrics(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("ask it who it is: %w", errors.Join(err, context.Cause(ctx)))
	}
	return p, p.follow(folder.output(), false, log)
}
