package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"nodeagent/xray/worker"
)

// version is set by the build, as -ldflags "-X main.version=1.2.3".
var version = "dev"

// userAgent names the versions to Core as products (RFC 9110, section 10.1.5); telemt's
// may be empty.
func userAgent(telemt string) string {
	products := fmt.Sprintf("node-agent/%s xray/%s", version, worker.XrayVersion())
	if telemt != "" {
		products += " telemt/" + telemt
	}
	return products
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
