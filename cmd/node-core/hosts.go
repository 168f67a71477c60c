package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nodeagent/coreapi"
)

func newHostCmd(s *shared) *cobra.Command {
	return group("host", "Hosts: what links say, several for one protocol", "  node-core host add --protocol fra1/vless-1 --address cdn.example --port 443 --remark '{node} over the CDN'\n  node-core host list",
		unawaited(newHostAddCmd(s)), newHostListCmd(s), newHostShowCmd(s), unawaited(newHostEditCmd(s)), unawaited(newHostRemoveCmd(s)))
}

func addHostFlags(flags *pflag.FlagSet, edit *coreapi.HostEdit) {
	addOption(flags, &edit.Remark, "remark", "text", "name of the link; {node}, {tag}, {region}, {user} and {address} are replaced", asText)
	addOption(flags, &edit.Address, "address", "host", "host name or IP address; empty for the inbound's own, as with the next ones", asText)
	addOption(flags, &edit.Port, "port", "port", "port, 0 for the inbound's own", parseCount)
	addOption(flags, &edit.SNI, "sni", "name", "server name", asText)
	addOption(flags, &edit.Fingerprint, "fingerprint", "name", "of the TLS handshake, such as chrome or firefox", asText)
	addOption(flags, &edit.HTTPHost, "http-host", "name", "Host of WebSocket, HTTPUpgrade and XHTTP", asText)
	addOption(flags, &edit.Path, "path", "path", "path of WebSocket, HTTPUpgrade and XHTTP", asText)
	addOption(flags, &edit.ALPN, "alpn", "list", "ALPN, with commas between", asText)
	addOption(flags, &edit.Security, "security", "name", "none or tls, where a proxy such as a CDN stands before the inbound", asText)
	addOption(flags, &edit.Position, "position", "number", "links are in this order (default 0)", parseCount)
	addOption(flags, &edit.Enabled, "enabled", "bool", "false leaves the link out", parseBool)
	flags.Lookup("enabled").NoOptDefVal = "true"
}

func newHostAddCmd(s *shared) *cobra.Command {
	var host coreapi.NewHost
	cmd := command(s, &cobra.Command{
		Use:     "add",
		Short:   "Add a link to a protocol, in the place of its own one; nodes do not know of it",
		Example: "  node-core host add --protocol fra1/vless-1 --address cdn.example --remark '{node} over the CDN'",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) (coreapi.Host, error) {
		return c.AddHost(ctx, host)
	}, showHost)
	cmd.Flags().StringVar(&host.Protocol, "protocol", "", "id of the protocol, or NODE/TAG")
	_ = cmd.MarkFlagRequired("protocol")
	addHostFlags(cmd.Flags(), &host.HostEdit)
	return cmd
}

func showHost(w io.Writer, h coreapi.Host) {
	line(w, "host", h.ID, "of protocol", h.ProtocolID)
	if !h.Enabled {
		line(w, "disabled", "no link has it")
	}
	for _, row := range [][2]string{
		{"remark", h.Remark}, {"address", h.Address}, {"server name", h.SNI}, {"fingerprint", h.Fingerprint}, {"HTTP host", h.HTTPHost}, {"path", h.Path}, {"ALPN", h.ALPN}, {"security", h.Security},
	} {
		if row[1] != "" {
			line(w, row[0], row[1])
		}
	}
	if h.Port != 0 {
		line(w, "port", h.Port)
	}
	if h.Position != 0 {
		line(w, "position", h.Position)
	}
}

func newHostListCmd(s *shared) *cobra.Command {
	var protocol string
	cmd := command(s, &cobra.Command{Use: "list", Short: "List the hosts in the order of the links", Example: "  node-core host list --protocol fra1/vless-1", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Host, error) {
			return c.Hosts(ctx, protocol)
		}, func(w io.Writer, all []coreapi.Host) {
			line(w, "ID", "PROTOCOL", "ENABLED", "ADDRESS", "PORT", "SNI", "REMARK")
			for _, h := range all {
				line(w, h.ID, h.ProtocolID, h.Enabled, h.Address, h.Port, h.SNI, h.Remark)
			}
		})
	cmd.Flags().StringVar(&protocol, "protocol", "", "id of a protocol, or NODE/TAG (default all)")
	return cmd
}

func newHostShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "show ID", Short: "Show a host", Example: "  node-core host show 1", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (host coreapi.Host, err error) {
			id, err := parseCount(words[0])
			if err != nil {
				return host, err
			}
			return c.Host(ctx, id)
		}, showHost)
}

func newHostEditCmd(s *shared) *cobra.Command {
	var edit coreapi.HostEdit
	cmd := command(s, &cobra.Command{Use: "edit ID", Short: "Change a host; nodes do not know of it", Example: "  node-core host edit 1 --port 8443\n  node-core host edit 1 --enabled=false", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (host coreapi.Host, err error) {
			id, err := parseCount(words[0])
			if err != nil {
				return host, err
			}
			return c.EditHost(ctx, id, edit)
		}, showHost)
	addHostFlags(cmd.Flags(), &edit)
	return cmd
}

func newHostRemoveCmd(s *shared) *cobra.Command {
	return asking(s, command(s, &cobra.Command{Use: "remove ID", Short: "Remove a host", Example: "  node-core host remove 1", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (removed coreapi.Removed, err error) {
			id, err := parseCount(words[0])
			if err != nil {
				return removed, err
			}
			return c.RemoveHost(ctx, id)
		}, showRemoved), false, func(words []string) string { return "Remove host " + words[0] + "?" })
}
