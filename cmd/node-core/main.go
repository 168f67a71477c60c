// Command node-core is a Core for node-agents: it keeps nodes, users and their traffic in one database,
// and speaks Core's side of the contract.
//
// The package has many small files: one for the commands of each noun, and one for each thing that serve
// starts.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"nodeagent/internal/cli"
	"nodeagent/internal/journal"
)

const defaultDataDir = "/var/lib/node-core"

// version is set by the build, as -ldflags "-X main.version=1.2.3".
var version = "dev"

// releaseURL is the folder or URL of the release that this program is of, which has install.sh.
// The build sets it, as version; empty where it is not known.
var releaseURL string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := newRootCmd(streams{out: os.Stdout, err: os.Stderr}).ExecuteContext(ctx)
	stop()
	if err != nil {
		journal.Failure(os.Stderr, "node-core", err)
		os.Exit(exitCode(err))
	}
}

// Exit codes, documented in docs/operating.md.
const (
	exitFailure  = 1
	exitNotTaken = 4 // of --wait: the change is stored, and a node does not run it
)

func exitCode(err error) int {
	if _, ok := errors.AsType[*notTakenError](err); ok {
		return exitNotTaken
	}
	return exitFailure
}

type streams struct{ out, err io.Writer }

// shared are the flags that every command has.
type shared struct {
	std       streams
	dataDir   string
	output    cli.Output
	api       string // address of the Core that is meant; empty for the one of dataDir
	tokenFile string
	pin       string
}

func newRootCmd(std streams) *cobra.Command {
	s := &shared{std: std}
	root := &cobra.Command{
		Use:           "node-core",
		Short:         "Control VPN nodes: what they serve, to whom, and how much traffic was used",
		Example:       "  node-core serve\n  node-core node add fra1\n  node-core usage --output json",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version,
	}
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.PersistentFlags().StringVar(&s.dataDir, "data-dir", defaultDataDir, "folder with the database, the certificate and the socket for commands")
	root.PersistentFlags().StringVar(&s.api, "api", "", "https://HOST[:PORT][/PATH] of the Core to steer (default the one that runs in the data folder)")
	root.PersistentFlags().StringVar(&s.tokenFile, "token-file", "", "with --api: file with a token of 'node-core token add'")
	root.PersistentFlags().StringVar(&s.pin, "api-pin", "", "with --api: SHA-256 of Core's own certificate, in hex, which 'node-core token add' prints (default trust the system's authorities)")
	root.AddCommand(
		newServeCmd(s), newNodeCmd(s), newProtocolCmd(s), newOutboundCmd(s),
		newUserCmd(s), newSubscriptionCmd(s), newPlanCmd(s), newGroupCmd(s), newRoutingCmd(s), newHostCmd(s), newDeviceCmd(s), newClientTemplateCmd(s), newClientRuleCmd(s), newUsageCmd(s), newOnlineCmd(s), newEventsCmd(s), newWebhookCmd(s), newTokenCmd(s), newAuditCmd(s),
		newImportCmd(s), newAnnounceCmd(s), newBackupCmd(s), newRestoreCmd(s), newCheckCmd(s), newMigrateDBCmd(s),
		cli.NewManCmd(std.out, version),
	)
	cli.Strict(root)
	return root
}
