package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"nodeagent/xray/worker"
)

// version is set by the build, as -ldflags "-X main.version=1.2.3".
var version = "dev"

// userAgent names the versions to Core; telemt's may be empty.
func userAgent(telemt string) string {
	engines := "xray " + worker.XrayVersion()
	if telemt != "" {
		engines += ", telemt " + telemt
	}
	return fmt.Sprintf("node-agent/%s (%s)", version, engines)
}

func newVersionCmd(std streams) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of the agent and its engines",
		Example: "  node-agent version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(std.out, "node-agent %s\nxray-core %s\n%s %s/%s\n", version, worker.XrayVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
