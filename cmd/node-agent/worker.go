package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"nodeagent/xray/ipc"
	"nodeagent/xray/worker"
	"nodeagent/xray/worker/heap"
)

// workerCommand is what the daemon starts itself as.
const workerCommand = "xray-worker"

// programName is the name of the worker's process. It is started from ownFile, after which the
// kernel would name it.
const programName = "node-agent"

func newWorkerCmd(std streams) *cobra.Command {
	return &cobra.Command{
		Use:    workerCommand,
		Short:  "Run Xray for the daemon; the daemon starts this command itself",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The daemon decides when the worker ends: a signal to the terminal's process
			// group must not end it before its bytes are counted.
			signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2)
			_ = os.WriteFile("/proc/self/comm", []byte(programName), 0) // without it, ps shows "exe"
			heap.Begin(heap.Available())
			listener, secret, err := ipc.Inherited()
			if err != nil {
				return err
			}
			return worker.Run(cmd.Context(), listener, secret, std.err)
		},
	}
}
