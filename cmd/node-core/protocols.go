package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/corestore"
)

func newProtocolCmd(s *shared) *cobra.Command {
	return group("protocol", "Protocols: the inbounds of a node", "  node-core protocol add --node fra1 --protocol vless --port 443 --security reality\n  node-core protocol list",
		newProtocolAddCmd(s), newProtocolListCmd(s), newProtocolRemoveCmd(s))
}

func newProtocolAddCmd(s *shared) *cobra.Command {
	var args adminapi.ProtocolArgs
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
	}, adminapi.ProtocolAdd, func([]string) (_ any, err error) {
		if args.Inbound, err = readObject(file); err != nil {
			return nil, err
		}
		if args.Inbound == nil && args.Flags.Listen == "" {
			args.Flags.Listen = "0.0.0.0"
		}
		return args, nil
	}, func(w io.Writer, p adminapi.ProtocolAdded) {
		line(w, "added", p.ID, p.Tag, p.Listen, p.Port)
		if p.Borrows != "" {
			_, _ = fmt.Fprintf(w, "it borrows the site %s\n", p.Borrows)
		}
	})
	flags, inbound := cmd.Flags(), &args.Flags
	flags.StringVar(&args.Node, "node", "", "name or id of the node")
	flags.StringVar(&args.Tag, "tag", "", "tag of the inbound (default PROTOCOL-ID)")
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
	var args adminapi.NodeArgs
	cmd := command(s, &cobra.Command{
		Use:     "list",
		Short:   "List the inbounds",
		Example: "  node-core protocol list\n  node-core protocol list --node fra1 --output json",
		Args:    cobra.NoArgs,
	}, adminapi.ProtocolList, func([]string) (any, error) { return args, nil }, func(w io.Writer, all []corestore.Protocol) {
		line(w, "ID", "NODE", "TAG", "PROTOCOL", "LISTEN", "PORT", "STATUS")
		for _, p := range all {
			line(w, p.ID, p.NodeID, p.Tag, p.Protocol, p.Listen, p.Port, p.Status)
		}
	})
	cmd.Flags().StringVar(&args.Node, "node", "", "name or id of a node (default all)")
	return cmd
}

func newProtocolRemoveCmd(s *shared) *cobra.Command {
	return changing(s, &cobra.Command{Use: "remove ID|NODE/TAG", Short: "Remove an inbound", Example: "  node-core protocol remove fra1/vless-1", Args: cobra.ExactArgs(1)},
		adminapi.ProtocolRemove, idArgs, showRemoved)
}

func idArgs(words []string) (any, error) { return adminapi.IDArgs{ID: words[0]}, nil }

func showRemoved(w io.Writer, r adminapi.Removed) { line(w, "removed", r.Removed) }
