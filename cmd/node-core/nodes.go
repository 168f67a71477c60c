package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newNodeCmd(s *shared) *cobra.Command {
	return group("node", "Nodes: the hosts that serve clients", "  node-core node add fra1 --region eu\n  node-core node list",
		newNodeAddCmd(s), newNodeCodeCmd(s), newNodeListCmd(s), newNodeShowCmd(s), newNodeErrorsCmd(s), newNodeEditCmd(s), newNodeMaintenanceCmd(s), newNodeMTProtoCmd(s), newNodeRotateCmd(s), newNodeRemoveCmd(s))
}

func newNodeAddCmd(s *shared) *cobra.Command {
	var region string
	var life time.Duration
	cmd := command(s, &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a node and print the join token; it is shown only this time",
		Example: "  node-core node add fra1 --region eu",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.NodeAdded, error) {
		return c.AddNode(ctx, coreapi.NewNode{Name: words[0], Region: region, ExpiresIn: life.String()})
	}, showAdded)
	cmd.Flags().StringVar(&region, "region", "", "free text, shown in lists")
	addCodeLife(cmd, &life)
	return cmd
}

func newNodeCodeCmd(s *shared) *cobra.Command {
	var life time.Duration
	cmd := command(s, &cobra.Command{
		Use:     "code NAME|ID",
		Short:   "Print another join token, to register a node again",
		Example: "  node-core node code fra1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.NodeAdded, error) {
		return c.AddNodeCode(ctx, words[0], coreapi.NewCode{ExpiresIn: life.String()})
	}, showAdded)
	addCodeLife(cmd, &life)
	return cmd
}

func addCodeLife(cmd *cobra.Command, life *time.Duration) {
	cmd.Flags().DurationVar(life, "expires-in", 24*time.Hour, "how long the code is valid")
}

func showAdded(w io.Writer, a coreapi.NodeAdded) {
	line(w, "node", a.ID, a.Name)
	line(w, "code", a.Code)
	line(w, "on the node, run:", "node-agent register "+a.JoinToken)
	line(w, "or, to install it too:", installLine(a.JoinToken))
}

// installLine is the command that makes a host without node-agent a node.
func installLine(token string) string {
	release := cmp.Or(os.Getenv("NODE_CORE_RELEASE_URL"), releaseURL)
	if release == "" {
		return "sh install.sh --token " + token + "  # install.sh is in the release"
	}
	return "curl -fsSL " + strings.TrimSuffix(release, "/") + "/install.sh | sh -s -- --token " + token
}

func newNodeListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "list", Short: "List the nodes", Example: "  node-core node list\n  node-core node list --output json", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Node, error) {
			return coreapi.Collect(c.Nodes(ctx, wholeList()))
		}, func(w io.Writer, nodes []coreapi.Node) {
			line(w, "ID", "NAME", "REGION", "STATUS", "SYNC", "REVISION", "LAST SEEN")
			for _, n := range nodes {
				line(w, n.ID, n.Name, n.Region, nodeStatus(n), n.SyncStatus, n.Revision, n.LastSeenAt)
			}
		})
}

// nodeStatus is a node's status, and why it serves nobody although it runs.
func nodeStatus(n coreapi.Node) string {
	if why := n.ServesNobody(); why != "" {
		return n.Status + ", " + why
	}
	return n.Status
}

func newNodeShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "show NAME|ID", Short: "Show a node with its inbounds, outbounds and last error", Example: "  node-core node show fra1", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.NodeDetails, error) {
			return c.Node(ctx, words[0])
		}, func(w io.Writer, n coreapi.NodeDetails) {
			line(w, "id", n.ID)
			line(w, "name", n.Name)
			line(w, "region", n.Region)
			line(w, "host", n.Host, n.IP)
			line(w, "status", nodeStatus(n.Node))
			line(w, "sync", n.SyncStatus)
			line(w, "revision", n.Revision, "applied", n.AppliedRevision)
			line(w, "last seen", n.LastSeenAt)
			line(w, "versions", n.Agent)
			showNodeTerms(w, n.Node)
			if n.TwoDaemonsAt != nil {
				line(w, "warning", "two daemons use this node's key, seen last "+text(n.TwoDaemonsAt)+": is a copy of its disk in use? Register the copy anew (node add, then node-agent register --force)")
			}
			if n.KeyOffered {
				line(w, "key", "another key is offered, which the node has not used yet")
			}
			for _, p := range n.Protocols {
				line(w, "protocol", p.Tag, p.Listen, p.Port, p.Status)
			}
			for _, o := range n.Outbounds {
				line(w, "outbound", o.Tag, configured(o), "up", o.TrafficBytesUp, "down", o.TrafficBytesDown)
			}
			for _, r := range n.Refused { // of any length: outside the columns
				_, _ = fmt.Fprintf(w, "refuses %s\n", printable(refusalText(r)))
			}
			showHealth(w, n.Health)
			if n.LastError != nil { // of any length: outside the columns
				_, _ = fmt.Fprintf(w, "\nlast error, %s: %s\n", text(n.LastErrorAt), printable(*n.LastError))
			}
		})
}

// showHealth prints how a node said last that it is, outside the columns: texts can be long.
func showHealth(w io.Writer, health *coreapi.NodeStatus) {
	if health == nil {
		return
	}
	_, _ = fmt.Fprintf(w, "\nhealth, told %s:\n", text(health.At))
	for _, in := range health.Inbounds {
		_, _ = fmt.Fprintf(w, "  %s %s since %s%s\n", printable(in.Tag), printable(in.State), text(in.Since), after(": ", printable(in.Reason)))
	}
	if health.MoreInbounds > 0 {
		_, _ = fmt.Fprintf(w, "  and %d more inbounds\n", health.MoreInbounds)
	}
	for _, warning := range health.Warnings {
		_, _ = fmt.Fprintf(w, "  warning: %s\n", printable(warning))
	}
	if health.MoreWarnings > 0 {
		_, _ = fmt.Fprintf(w, "  and %d more warnings\n", health.MoreWarnings)
	}
}

func newNodeErrorsCmd(s *shared) *cobra.Command {
	var limit int
	cmd := command(s, &cobra.Command{
		Use:     "errors [NAME|ID]",
		Short:   "Show the errors that a node, or all nodes, reported; the newest is last",
		Example: "  node-core node errors fra1 --limit 20\n  node-core node errors fra1 --output json  # with the details, where warnings are",
		Args:    cobra.MaximumNArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (n named[coreapi.NodeError], err error) {
		query, err := limited(limit)
		if err != nil {
			return n, err
		}
		if len(words) == 1 {
			query.Set("node", words[0])
		}
		all, err := c.NodeErrors(ctx, query)
		if err != nil {
			return n, err
		}
		return withNames(ctx, s, c, all, func(e coreapi.NodeError) (node, user, inbound int64) { return e.NodeID, 0, 0 })
	}, func(w io.Writer, n named[coreapi.NodeError]) {
		line(w, "TIME", "NODE", "CODE", "MESSAGE")
		for _, e := range n.rows {
			line(w, e.At, nameOr(n.nodes, e.NodeID), e.Code, e.Message)
		}
	})
	addLimit(cmd, &limit)
	return cmd
}

func newNodeMTProtoCmd(s *shared) *cobra.Command {
	return changing(s, &cobra.Command{
		Use:   "mtproto NAME|ID FILE",
		Short: "Set what the MTProto inbounds of a node share: upstreams, and telemt's own keys",
		Long: "Set what the MTProto inbounds of a node share. The file has a JSON object with upstreams (ways to\n" +
			"Telegram: direct, socks4, socks5, shadowsocks) and advanced (telemt's own keys, merged as they are).",
		Example: `  echo '{"upstreams":[{"type":"socks5","address":"127.0.0.1:1080"}]}' >options.json` + "\n" +
			"  node-core node mtproto fra1 options.json",
		Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (node coreapi.Node, change coreapi.Change, err error) {
		options, err := readObject(words[1])
		if err != nil {
			return node, change, err
		}
		return c.SetNodeMTProto(ctx, words[0], options)
	}, func(w io.Writer, n coreapi.Node) { line(w, "set the MTProto options of node", n.ID, n.Name) })
}

func newNodeRotateCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{
		Use:   "rotate NAME|ID",
		Short: "Give a node another auth key",
		Long: "Give a node another auth key. The node gets it with the answer to its next heartbeat. Its own key is\n" +
			"accepted until the node has used the other one, and for a minute more.",
		Example: "  node-core node rotate fra1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Node, error) {
		return c.RotateNodeKey(ctx, words[0])
	}, func(w io.Writer, n coreapi.Node) {
		line(w, "offered another key to node", n.ID, n.Name)
	})
}

func newNodeRemoveCmd(s *shared) *cobra.Command {
	return asking(s, command(s, &cobra.Command{
		Use:     "remove NAME|ID",
		Short:   "Remove a node: Core no longer accepts its key. The traffic of users is kept, the traffic of its outbounds is not",
		Example: "  node-core node remove fra1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Node, error) {
		return c.RemoveNode(ctx, words[0])
	}, func(w io.Writer, n coreapi.Node) { line(w, "removed node", n.ID, n.Name) }), false, func(words []string) string {
		return "Remove node " + words[0] + " with its protocols? Their keys are gone then"
	})
}

// wholeList is the query of a list that is read as a whole, in few pages.
func wholeList() url.Values { return url.Values{"limit": {"1000"}} }

// setText sets a parameter of a query, unless it is empty.
func setText(query url.Values, name, value string) {
	if value != "" {
		query.Set(name, value)
	}
}

// ofNode is wholeList for the rows of a node; of all nodes for an empty name.
func ofNode(nameOrID string) url.Values {
	query := wholeList()
	setText(query, "node", nameOrID)
	return query
}
