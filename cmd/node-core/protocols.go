package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newProtocolCmd(s *shared) *cobra.Command {
	return group("protocol", "Protocols: the inbounds of a node", "  node-core protocol add --node fra1 --protocol vless --port 443 --security reality\n  node-core protocol list",
		newProtocolAddCmd(s), newProtocolListCmd(s), newProtocolRemoveCmd(s))
}

func newProtocolAddCmd(s *shared) *cobra.Command {
	var p coreapi.NewProtocol
	var file string
	cmd := changing(s, &cobra.Command{
		Use:   "add",
		Short: "Add an inbound to a node",
		Long: "Add an inbound to a node. Flags describe a common one; --inbound names a file with Xray's own\n" +
			"object for any other. The object needs no clients: every enabled subscription becomes one.",
		Example: "  node-core protocol add --node fra1 --protocol vless --listen 0.0.0.0 --port 443 --security reality\n" +
			"  node-core protocol add --node fra1 --protocol mtproto --port 8444 --tls-domain www.example.com\n" +
			"  node-core protocol add --node fra1 --protocol vless --port 8443 --inbound inbound.json",
		Args: cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) (added coreapi.ProtocolAdded, change coreapi.Change, err error) {
		if p.Inbound, err = readObject(file); err != nil {
			return added, change, err
		}
		if p.Inbound == nil && p.Flags.Listen == "" {
			p.Flags.Listen = "0.0.0.0"
		}
		return c.AddProtocol(ctx, p)
	}, func(w io.Writer, p coreapi.ProtocolAdded) {
		line(w, "added", p.ID, p.Tag, p.Listen, p.Port)
		if p.Borrows != "" {
			_, _ = fmt.Fprintf(w, "it borrows the site %s\n", p.Borrows)
		}
	})
	flags, inbound := cmd.Flags(), &p.Flags
	flags.StringVar(&p.Node, "node", "", "name or id of the node")
	flags.StringVar(&p.Tag, "tag", "", "tag of the inbound (default PROTOCOL-ID)")
	flags.StringVar(&inbound.Protocol, "protocol", "", "vless or mtproto; with --inbound any protocol of Xray")
	flags.StringVar(&inbound.Listen, "listen", "", "IP address to listen on (default 0.0.0.0)")
	flags.IntVar(&inbound.Port, "port", 0, "port to listen on, 1 to 65535")
	flags.StringVar(&file, "inbound", "", "file with the native Xray inbound, JSON")
	flags.StringVar(&inbound.Security, "security", "", "none, tls or reality (default none)")
	flags.StringVar(&inbound.SNI, "sni", "", "server name that clients ask for (with tls and reality)")
	flags.StringVar(&inbound.CertFile, "cert", "", "with tls: path of the certificate, on the node")
	flags.StringVar(&inbound.KeyFile, "key", "", "with tls: path of the key of that certificate, on the node")
	flags.StringVar(&inbound.Dest, "dest", "", "with reality: HOST:PORT of the site to borrow (default port 443 of --sni)")
	flags.StringVar(&inbound.Flow, "flow", "", "xtls-rprx-vision, or none")
	flags.StringArrayVar(&inbound.TLSDomains, "tls-domain", nil, "with mtproto: offer the TLS mode, which looks like HTTPS to this site; may be repeated, each gets a link")
	flags.BoolVar(&inbound.Secure, "secure", false, "with mtproto: offer the dd mode")
	flags.BoolVar(&inbound.Classic, "classic", false, "with mtproto: offer the mode without disguise")
	flags.StringVar(&inbound.Mask, "mask", "", "with mtproto: HOST:PORT of the site that strangers are shown; without it, the first --tls-domain")
	flags.StringVar(&inbound.AdTag, "ad-tag", "", "with mtproto: the tag of @MTProxybot")
	flags.StringVar(&inbound.PublicHost, "public-host", "", "with mtproto: host name in the links (default the node's)")
	_ = cmd.MarkFlagRequired("node")
	return cmd
}

// readObject reads a file of JSON, nil for no file.
func readObject(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the native object: %w", err)
	}
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, fmt.Errorf("read the native object: %s is no JSON object: %w", path, err)
	}
	if object == nil {
		return nil, fmt.Errorf("read the native object: %s is null, want an object", path)
	}
	return raw, nil
}

func newProtocolListCmd(s *shared) *cobra.Command {
	var node string
	cmd := command(s, &cobra.Command{
		Use:     "list",
		Short:   "List the inbounds",
		Example: "  node-core protocol list\n  node-core protocol list --node fra1 --output json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Protocol, error) {
		return coreapi.Collect(c.Protocols(ctx, ofNode(node)))
	}, func(w io.Writer, all []coreapi.Protocol) {
		line(w, "ID", "NODE", "TAG", "PROTOCOL", "LISTEN", "PORT", "STATUS")
		for _, p := range all {
			line(w, p.ID, p.NodeID, p.Tag, p.Protocol, p.Listen, p.Port, p.Status)
		}
	})
	cmd.Flags().StringVar(&node, "node", "", "name or id of a node (default all)")
	return cmd
}

func newProtocolRemoveCmd(s *shared) *cobra.Command {
	return changing(s, &cobra.Command{Use: "remove ID|NODE/TAG", Short: "Remove an inbound", Example: "  node-core protocol remove fra1/vless-1", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, coreapi.Change, error) {
			return c.RemoveProtocol(ctx, words[0])
		}, showRemoved)
}

func showRemoved(w io.Writer, r coreapi.Removed) { line(w, "removed", r.Removed) }
