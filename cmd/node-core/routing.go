package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nodeagent/coreapi"
)

func newRoutingCmd(s *shared) *cobra.Command {
	return group("routing", "Routing: what nodes do with traffic before it leaves", "  node-core routing add strict --block-torrents --block-domain geosite:category-ads --node fra1\n  node-core routing list",
		newRoutingAddCmd(s), newRoutingListCmd(s), newRoutingShowCmd(s), newRoutingEditCmd(s), unawaited(newRoutingRemoveCmd(s)))
}

// routingFlags are the flags of a routing profile.
type routingFlags struct {
	edit               coreapi.RoutingEdit
	domains, ips       []string
	rules, dns, policy string
	flags              *pflag.FlagSet
}

func (f *routingFlags) add(flags *pflag.FlagSet) {
	f.flags = flags
	addOption(flags, &f.edit.Note, "note", "text", "a note for you", asText)
	addOption(flags, &f.edit.BlockPrivate, "block-private", "bool", "block loopback, link-local and private destinations (default of a new profile true)", parseBool)
	addOption(flags, &f.edit.BlockTorrents, "block-torrents", "bool", "block BitTorrent; inbounds that do not sniff begin to, which ends their connections once", parseBool)
	for _, name := range []string{"block-private", "block-torrents"} {
		flags.Lookup(name).NoOptDefVal = "true"
	}
	flags.StringArrayVar(&f.domains, "block-domain", nil, "block this domain in Xray's words, such as domain:example.com or geosite:category-ads; may be repeated, and replaces the list of before; '' for none")
	flags.StringArrayVar(&f.ips, "block-ip", nil, "block this destination in Xray's words, such as 192.0.2.0/24 or geoip:cn; may be repeated, and replaces the list of before; '' for none")
	addOption(flags, &f.edit.DomainStrategy, "domain-strategy", "strategy", "AsIs, IPIfNonMatch or IPOnDemand: whether rules for addresses are tried on names", asText)
	flags.StringVar(&f.rules, "rules", "", "file with Xray's own list of rules, JSON, which come after what is blocked")
	flags.StringVar(&f.dns, "dns", "", "file with Xray's own dns object, JSON")
	flags.StringVar(&f.policy, "policy", "", "file with Xray's own policy object, JSON")
	flags.StringArrayVar(&f.edit.AddNodes, "node", nil, "give the profile to this node, in the place of the one it has: name or id; may be repeated")
}

// read returns what the flags say.
func (f *routingFlags) read() (coreapi.RoutingEdit, error) {
	edit := f.edit
	for name, list := range map[string]struct {
		words []string
		to    **[]string
	}{"block-domain": {f.domains, &edit.BlockDomains}, "block-ip": {f.ips, &edit.BlockIPs}} {
		if f.flags.Changed(name) {
			words := list.words
			if len(words) == 1 && words[0] == "" {
				words = []string{}
			}
			*list.to = &words
		}
	}
	for path, to := range map[*string]**json.RawMessage{&f.rules: &edit.Rules, &f.dns: &edit.DNS, &f.policy: &edit.Policy} {
		if *path == "" {
			continue
		}
		raw, err := os.ReadFile(*path)
		if err != nil {
			return edit, fmt.Errorf("read the native object: %w", err)
		}
		if !json.Valid(raw) {
			return edit, fmt.Errorf("read the native object: %s is no JSON", *path)
		}
		*to = new(json.RawMessage(raw))
	}
	return edit, nil
}

func newRoutingAddCmd(s *shared) *cobra.Command {
	var f routingFlags
	cmd := changing(s, &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a routing profile; it blocks private destinations unless it says otherwise",
		Example: "  node-core routing add strict --block-torrents --block-ip geoip:cn --node fra1\n  node-core routing add warp --rules rules.json",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (details coreapi.RoutingDetails, change coreapi.Change, err error) {
		edit, err := f.read()
		if err != nil {
			return details, change, err
		}
		edit.Name = &words[0]
		return c.AddRouting(ctx, coreapi.NewRouting{RoutingEdit: edit})
	}, showRouting)
	f.add(cmd.Flags())
	return cmd
}

func newRoutingEditCmd(s *shared) *cobra.Command {
	var f routingFlags
	cmd := changing(s, &cobra.Command{
		Use:     "edit NAME|ID",
		Short:   "Change a routing profile and which nodes have it; only the nodes concerned get another revision",
		Example: "  node-core routing edit default --block-torrents\n  node-core routing edit strict --node ams1 --remove-node fra1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (details coreapi.RoutingDetails, change coreapi.Change, err error) {
		edit, err := f.read()
		if err != nil {
			return details, change, err
		}
		return c.EditRouting(ctx, words[0], edit)
	}, showRouting)
	f.add(cmd.Flags())
	addOption(cmd.Flags(), &f.edit.Name, "name", "name", "another name", asText)
	cmd.Flags().StringArrayVar(&f.edit.RemoveNodes, "remove-node", nil, "leave this node without a profile; may be repeated")
	return cmd
}

func newRoutingListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "list", Short: "List the routing profiles", Example: "  node-core routing list", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Routing, error) {
			return c.Routings(ctx)
		}, func(w io.Writer, all []coreapi.Routing) {
			line(w, "ID", "NAME", "NODES", "BLOCKS", "RULES")
			for _, r := range all {
				line(w, r.ID, r.Name, len(r.Nodes), blocksText(r), ruleCount(r))
			}
		})
}

// blocksText says what a profile blocks.
func blocksText(r coreapi.Routing) string {
	var all []string
	if r.BlockPrivate {
		all = append(all, "private")
	}
	if r.BlockTorrents {
		all = append(all, "torrents")
	}
	if all = append(append(all, r.BlockDomains...), r.BlockIPs...); len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, " ")
}

func ruleCount(r coreapi.Routing) int {
	var rules []json.RawMessage
	_ = json.Unmarshal(r.Rules, &rules) // none is no list
	return len(rules)
}

func newRoutingShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "show NAME|ID", Short: "Show a routing profile and the nodes that have it", Example: "  node-core routing show default", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.RoutingDetails, error) {
			return c.Routing(ctx, words[0])
		}, showRouting)
}

func showRouting(w io.Writer, r coreapi.RoutingDetails) {
	line(w, "routing", r.ID, r.Name)
	if r.Note != "" {
		line(w, "note", r.Note)
	}
	line(w, "blocks", blocksText(r.Routing))
	if r.DomainStrategy != "" {
		line(w, "domain strategy", r.DomainStrategy)
	}
	for _, object := range []struct {
		name string
		raw  json.RawMessage
	}{{"rules", r.Rules}, {"dns", r.DNS}, {"policy", r.Policy}} {
		if len(object.raw) > 0 {
			line(w, object.name, string(object.raw))
		}
	}
	for _, name := range r.NodeNames {
		line(w, "node", name)
	}
}

func newRoutingRemoveCmd(s *shared) *cobra.Command {
	return asking(s, command(s, &cobra.Command{Use: "remove NAME|ID", Short: "Remove a routing profile that no node has", Example: "  node-core routing remove strict", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, error) {
			return c.RemoveRouting(ctx, words[0])
		}, showRemoved), false, func(words []string) string { return "Remove routing profile " + words[0] + "?" })
}
