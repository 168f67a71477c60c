package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nodeagent/telemt/process"
	"nodeagent/xray"
	"nodeagent/xray/ipc"
)

// endGrace is how long a worker gets to end by itself.
const endGrace = 5 * time.Second

func newEndWorkersCmd(std streams) *cobra.Command {
	var flags settingFlags
	var unit string
	cmd := &cobra.Command{
		Use:   "end-workers",
		Short: "End the Xray and telemt that a daemon has left, where no daemon will go on with them",
		Long: "End the Xray and telemt that a daemon has left. Clients are cut. A daemon that is stopped ends them itself;\n" +
			"one that was killed leaves them to the next daemon. With --after-stop it ends nothing where systemd starts the\n" +
			"unit again: the service runs it so after each end of the daemon (ExecStopPost).",
		Example: "  node-agent end-workers\n  node-agent end-workers --runtime-dir ./run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := flags.load()
			if err != nil {
				return err
			}
			if unit != "" && !stopped(cmd.Context(), unit) {
				return nil
			}
			if !ipc.HasFolder(s.RuntimeDir) { // no daemon has run; root must make no files that are in its way
				return nil
			}
			unlock, err := lockLeft(s.RuntimeDir)
			if err != nil {
				return err
			}
			defer unlock()
			ended, err := endLeft(s, endGrace)
			if ended > 0 {
				_, _ = fmt.Fprintf(std.out, "Workers that were ended: %d.\n", ended)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&unit, "after-stop", "", "the systemd unit whose daemon has ended")
	flags.add(cmd.Flags(), "config", "state-dir", "runtime-dir")
	return cmd
}

// endLeft ends the workers and telemts that a daemon has left, and returns how many. A worker gets the
// grace to end by itself.
func endLeft(s settings, grace time.Duration) (ended int, err error) {
	stateDir, err := filepath.Abs(s.StateDir)
	if err != nil {
		return 0, fmt.Errorf("find the state folder: %w", err)
	}
	workers, workersErr := xray.EndWorkers(s.RuntimeDir, grace)
	telemts, telemtErr := process.EndAll(filepath.Join(stateDir, telemtFolder))
	return workers + telemts, errors.Join(workersErr, telemtErr)
}

// lockLeft locks a runtime folder that a daemon has left. It makes no file: root ends what a daemon of
// another user has left, and that user's next daemon could not open a file of root.
func lockLeft(dir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	} else if err != nil {
		return nil, fmt.Errorf("lock runtime folder: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock runtime folder %s: another node-agent uses it; stop that one: %w", dir, err)
	}
	return func() { _ = file.Close() }, nil
}

// stopped tells whether the unit, whose daemon has ended, is stopped and not started again. Where
// systemd can't be asked it returns false: the workers end by themselves after xray.orphan_timeout.
func stopped(ctx context.Context, unit string) bool {
	out, err := exec.CommandContext(ctx, "systemctl", "list-jobs", "--no-legend", "--plain", "--full", unit).Output()
	if err != nil {
		return false
	}
	return unitStops(string(out), unit, os.Getenv("SERVICE_RESULT"))
}

// unitStops tells whether a unit is stopped and not started again, by systemd's jobs, one a line
// with number, unit, type and state, and by how its main process ended (systemd.exec(5),
// SERVICE_RESULT).
func unitStops(jobs, unit, result string) bool {
	for line := range strings.Lines(jobs) {
		if fields := strings.Fields(line); len(fields) >= 3 && fields[1] == unit {
			return fields[2] == "stop"
		}
	}
	// No job: the daemon has ended by itself. systemd starts one again that failed
	// (Restart=on-failure).
	return result == "success"
}
