package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newProtocolCmd(s *shared) *cobra.Command {
	return group("protocol", "Protocols: the inbounds of a node", "  node-core protocol add --node fra1 --protocol vless --port 443 --security reality\n  node-core protocol list",
		newProtocolAddCmd(s), newProtocolListCmd(s), newProtocolShowCmd(s), newProtocolEditCmd(s), newProtocolRotateCmd(s), newProtocolRemoveCmd(s))
}

func newProtocolAddCmd(s *shared) *cobra.Command {
	var p coreapi.NewProtocol
	var file string
	cmd := changing(s, &cobra.Command{
		Use:   "add",
		Short: "Add an inbound to a node",
		Long: "Add an inbound to a node. Flags describe a common one; --inbound names a file with Xray's own\n" +
			"object for any other. The object needs no clients: every subscription that reaches it becomes one.\n" +
			"VLESS means REALITY with Vision unless --security says otherwise, or it listens on loopback.\n" +
			"--template without --node makes a template of that name; with --node it uses one on that node,\n" +
			"where --port, --listen, --public-host, --sni, --cert and --key, --dest and --flow can differ.",
		Example: "  node-core protocol add --node fra1 --protocol vless --listen 0.0.0.0 --port 443 --security reality\n" +
			"  node-core protocol add --node fra1 --protocol mtproto --port 8444 --tls-domain www.example.com\n" +
			"  node-core protocol add --node fra1 --protocol vless --port 8443 --inbound inbound.json\n" +
			"  node-core protocol add --template main --protocol vless --port 443\n" +
			"  node-core protocol add --node ams1 --template main --port 8443",
		Args: cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) (added coreapi.ProtocolAdded, change coreapi.Change, err error) {
		if p.Node == "" && p.Template == "" {
			return added, change, errors.New(`required flag(s) "node" not set`)
		}
		if p.Inbound, err = readObject(file); err != nil {
			return added, change, err
		}
		if p.Inbound == nil && p.Flags.Listen == "" && (p.Template == "" || p.Node == "") {
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
	flags.StringVar(&p.Template, "template", "", "name of the template to make, or with --node to use")
	flags.StringVar(&p.Tag, "tag", "", "tag of the inbound (default PROTOCOL-ID)")
	flags.StringVar(&inbound.Protocol, "protocol", "", "vless or mtproto; with --inbound any protocol of Xray")
	flags.StringVar(&inbound.Listen, "listen", "", "IP address to listen on (default 0.0.0.0)")
	flags.IntVar(&inbound.Port, "port", 0, "port to listen on, 1 to 65535")
	flags.StringVar(&file, "inbound", "", "file with the native Xray inbound, JSON")
	flags.StringVar(&inbound.Security, "security", "", "none, tls or reality (default of vless reality, on loopback none)")
	flags.StringVar(&inbound.SNI, "sni", "", "server name that clients ask for (with tls and reality)")
	flags.StringVar(&inbound.CertFile, "cert", "", "with tls: path of the certificate, on the node")
	flags.StringVar(&inbound.KeyFile, "key", "", "with tls: path of the key of that certificate, on the node")
	flags.StringVar(&inbound.Dest, "dest", "", "with reality: HOST:PORT of the site to borrow (default port 443 of --sni)")
	flags.StringVar(&inbound.Flow, "flow", "", "xtls-rprx-vision, or none (default of vless without --security xtls-rprx-vision, else none)")
	flags.StringArrayVar(&inbound.TLSDomains, "tls-domain", nil, "with mtproto: offer the TLS mode, which looks like HTTPS to this site; may be repeated, each gets a link")
	flags.BoolVar(&inbound.Secure, "secure", false, "with mtproto: offer the dd mode")
	flags.BoolVar(&inbound.Classic, "classic", false, "with mtproto: offer the mode without disguise")
	flags.StringVar(&inbound.Mask, "mask", "", "with mtproto: HOST:PORT of the site that strangers are shown; without it, the first --tls-domain")
	flags.StringVar(&inbound.AdTag, "ad-tag", "", "with mtproto: the tag of @MTProxybot")
	flags.StringVar(&inbound.PublicHost, "public-host", "", "host name in the links (default the node's)")
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
		Example: "  node-core protocol list\n  node-core protocol list --node fra1 --output json\n  node-core protocol list --templates",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Protocol, error) {
		return coreapi.Collect(c.Protocols(ctx, ofNode(node)))
	}, func(w io.Writer, all []coreapi.Protocol) {
		line(w, "ID", "NODE", "TAG", "PROTOCOL", "LISTEN", "PORT", "STATUS")
		for _, p := range all {
			line(w, p.ID, p.NodeID, p.Tag, p.Protocol, p.Listen, p.Port, p.Status)
		}
	})
	templates := command(s, &cobra.Command{}, func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Template, error) {
		return c.Templates(ctx)
	}, func(w io.Writer, all []coreapi.Template) {
		line(w, "ID", "NAME", "PROTOCOL", "LISTEN", "PORT", "USES")
		for _, t := range all {
			line(w, t.ID, t.Name, t.Protocol, t.Listen, t.Port, t.Uses)
		}
	})
	var ofTemplates bool
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		if ofTemplates {
			templates.SetContext(cmd.Context())
			return templates.RunE(templates, words)
		}
		return run(cmd, words)
	}
	cmd.Flags().StringVar(&node, "node", "", "name or id of a node (default all)")
	cmd.Flags().BoolVar(&ofTemplates, "templates", false, "list the templates instead")
	return cmd
}

func newProtocolShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "show ID|NODE/TAG|TEMPLATE", Short: "Show an inbound or a template, without its private keys", Example: "  node-core protocol show fra1/vless-1\n  node-core protocol show main", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.ProtocolDetails, error) {
			return c.Protocol(ctx, words[0])
		}, showProtocol)
}

func showProtocol(w io.Writer, p coreapi.ProtocolDetails) {
	if p.Node == "" {
		line(w, "template", p.ID, p.Tag)
	} else {
		line(w, "protocol", p.ID, p.Node+"/"+p.Tag)
		line(w, "status", p.Status)
	}
	line(w, "serves", p.Protocol.Protocol, p.Listen, p.Port)
	for _, row := range [][2]string{
		{"note", p.Note},
		{"transport", p.Summary.Transport},
		{"security", p.Summary.Security},
		{"server name", p.Summary.SNI},
		{"borrows", p.Summary.Borrows},
		{"public key", p.Summary.PublicKey},
		{"short ids", strings.Join(p.Summary.ShortIDs, ", ")},
		{"modes", strings.Join(p.Summary.Modes, ", ")},
		{"flow", p.Link.Flow},
		{"host in links", p.Link.PublicHost},
		{"template", p.Template},
		{"groups", strings.Join(p.Groups, ", ")},
	} {
		if row[1] != "" {
			line(w, row[0], row[1])
		}
	}
	if p.TemplateID != 0 {
		own, _ := json.Marshal(p.Overrides) // texts and a number always marshal
		line(w, "differs in", string(own))
	}
	if p.Uses != nil {
		line(w, "uses", *p.Uses)
	}
}

func newProtocolEditCmd(s *shared) *cobra.Command {
	var args coreapi.ProtocolEdit
	var file string
	cmd := changing(s, &cobra.Command{
		Use:   "edit ID|NODE/TAG|TEMPLATE",
		Short: "Change an inbound, or a template and with it all inbounds that have it",
		Long: "Change an inbound, or a template and with it all inbounds that have it. What is not given stays as it\n" +
			"is; of an inbound with a template, what is given differs from the template from then on.",
		Example: "  node-core protocol edit fra1/vless-1 --port 8443\n  node-core protocol edit main --sni www.example.com\n  node-core protocol edit fra1/vless-1 --enabled=false --wait",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (details coreapi.ProtocolDetails, change coreapi.Change, err error) {
		if args.Inbound, err = readObject(file); err != nil {
			return details, change, err
		}
		return c.EditProtocol(ctx, words[0], args)
	}, showProtocol)
	flags, own := cmd.Flags(), &args.Overrides
	addOption(flags, &args.Tag, "tag", "tag", "another tag, or another name of the template", asText)
	addOption(flags, &args.Note, "note", "text", "a note for you", asText)
	addOption(flags, &args.Enabled, "enabled", "bool", "false leaves the inbound out of its node", parseBool)
	flags.Lookup("enabled").NoOptDefVal = "true"
	flags.StringVar(&file, "inbound", "", "file with another native inbound of the same protocol, JSON")
	flags.StringVar(&own.Listen, "listen", "", "IP address to listen on")
	flags.IntVar(&own.Port, "port", 0, "port to listen on, 1 to 65535")
	flags.StringVar(&own.PublicHost, "public-host", "", "host name in the links")
	flags.StringVar(&own.SNI, "sni", "", "server name that clients ask for (with tls and reality)")
	flags.StringVar(&own.CertFile, "cert", "", "with tls: path of the certificate, on the node")
	flags.StringVar(&own.KeyFile, "key", "", "with tls: path of the key of that certificate, on the node")
	flags.StringVar(&own.Dest, "dest", "", "with reality: HOST:PORT of the site to borrow")
	flags.StringVar(&own.Flow, "flow", "", "xtls-rprx-vision, or none")
	return cmd
}

func newProtocolRotateCmd(s *shared) *cobra.Command {
	return asking(s, changing(s, &cobra.Command{
		Use:     "rotate ID|NODE/TAG|TEMPLATE",
		Short:   "Give a REALITY inbound, or a template, another key and short id; links of before connect no more",
		Example: "  node-core protocol rotate fra1/vless-1 --yes",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.ProtocolDetails, coreapi.Change, error) {
		return c.RotateProtocol(ctx, words[0])
	}, showProtocol), true, func(words []string) string {
		return "Give protocol " + words[0] + " another key? The links of now connect no more"
	})
}

func newProtocolRemoveCmd(s *shared) *cobra.Command {
	return asking(s, changing(s, &cobra.Command{Use: "remove ID|NODE/TAG|TEMPLATE", Short: "Remove an inbound, or a template that no inbound has", Example: "  node-core protocol remove fra1/vless-1", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, coreapi.Change, error) {
			return c.RemoveProtocol(ctx, words[0])
		}, showRemoved), false, func(words []string) string {
		return "Remove protocol " + words[0] + "? Its keys are gone then"
	})
}

func showRemoved(w io.Writer, r coreapi.Removed) { line(w, "removed", r.Removed) }
