// Command node-agent is the daemon of a VPN host and its commands.
//
// Each command has a file, and so has each thing that the daemon alone does: its settings, sockets,
// systemd, reloads and upgrades. All of them share the settings and nothing else.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"nodeagent/agent"
	"nodeagent/internal/cli"
	"nodeagent/internal/journal"
)

// Exit codes, documented in docs/operating.md.
const (
	exitFailure    = 1
	exitNotRunning = 3 // status: the daemon does not run; the same as systemctl's
)

// problemExits are the exit codes of `status --check`, by the worst problem.
var problemExits = map[agent.ProblemKind]int{
	agent.NotServed: 4, agent.ConfigRefused: 5, agent.KeyRejected: 6, agent.CoreUnreachable: 7, agent.Attention: 8,
}

// problemsError makes the exit code that of its first problem, which is the worst.
type problemsError []agent.Problem

func (e problemsError) Error() string {
	texts := make([]string, len(e))
	for i, p := range e {
		texts[i] = problemText(p)
	}
	return strings.Join(texts, "; ")
}

// errNotRunning makes the exit code exitNotRunning.
var errNotRunning = errors.New("the daemon is not running")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := newRootCmd(streams{out: os.Stdout, err: os.Stderr}).ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	journal.Failure(os.Stderr, "node-agent", err)
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	if problems, ok := errors.AsType[problemsError](err); ok {
		return problemExits[problems[0].Kind]
	}
	if errors.Is(err, errNotRunning) {
		return exitNotRunning
	}
	return exitFailure
}

type streams struct{ out, err io.Writer }

func newRootCmd(std streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "node-agent",
		Short:         "Serve VPN clients on this host under a Core's control",
		Long:          "node-agent registers this host with a Core, runs the Xray and MTProto inbounds that Core configures,\ncounts the traffic of every client and reports it to Core.",
		Example:       "  node-agent register nj1_eyJ1Ijoi...\n  node-agent run\n  node-agent status",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.AddCommand(newRegisterCmd(std), newRunCmd(std), newStatusCmd(std), newOutboxCmd(std), newCoreCmd(std), newAdoptCmd(std), newTelemtCmd(std), newVersionCmd(std), newWorkerCmd(std), newEndWorkersCmd(std), newTryStateCmd(std), cli.NewManCmd(std.out, version))
	cli.Strict(root)
	return root
}
