package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/importer"
	"nodeagent/coreapi"
	"nodeagent/internal/cli"
)

// importFlags are the flags of each import.
type importFlags struct {
	node   string
	prefix string
	dryRun bool
	yes    bool
}

func newImportCmd(s *shared) *cobra.Command {
	var config, profile string
	marzban := newImportPanelCmd(s, "marzban FILE", "Import from Marzban: its db.sqlite3, or the answer of its GET /api/users",
		"  node-core import marzban db.sqlite3 --xray-config xray_config.json --node fra1 --dry-run", cobra.ExactArgs(1),
		func(ctx context.Context, files []string, o importer.Options) (importer.Read, error) {
			return importer.Marzban(ctx, files[0], config, o)
		})
	marzban.Flags().StringVar(&config, "xray-config", "", "the panel's xray_config.json, which has its inbounds")
	remnawave := newImportPanelCmd(s, "remnawave FILE...", "Import from remnawave: answers of its API, one in each file",
		"  node-core import remnawave users.json config-profiles.json internal-squads.json hosts.json --node fra1", cobra.MinimumNArgs(1),
		func(_ context.Context, files []string, o importer.Options) (importer.Read, error) {
			return importer.Remnawave(files, profile, o)
		})
	remnawave.Flags().StringVar(&profile, "profile", "", "name of the configuration profile whose inbounds the node gets (default the only one)")
	return group("import", "Import what another panel had: inbounds, users, credentials, limits and counters", "  node-core import 3x-ui x-ui.db --node fra1 --dry-run",
		newImportPanelCmd(s, "3x-ui FILE", "Import from 3x-ui: its x-ui.db", "  node-core import 3x-ui x-ui.db --node fra1 --dry-run\n  node-core import 3x-ui x-ui.db --node fra1 --yes", cobra.ExactArgs(1),
			func(ctx context.Context, files []string, o importer.Options) (importer.Read, error) {
				return importer.ThreeXUI(ctx, files[0], o)
			}),
		marzban, remnawave)
}

// importReport is what an import has done, or would do.
type importReport struct {
	DryRun    bool            `json:"dryRun"`
	Added     importCounts    `json:"added"`
	Present   importCounts    `json:"present"`
	Left      []importer.Left `json:"left"`
	Notes     []string        `json:"notes"`
	Protocols []string        `json:"protocols"` // those that are added
	warnings  []string
}

// Warnings returns what the node will warn of.
func (r importReport) Warnings() []string { return r.warnings }

type importCounts struct {
	Protocols int `json:"protocols"`
	Groups    int `json:"groups"`
	Users     int `json:"users"`
}

func newImportPanelCmd(s *shared, use, short, example string, args cobra.PositionalArgs, read func(context.Context, []string, importer.Options) (importer.Read, error)) *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: args,
		Long: short + ".\n\n" +
			"Clients' links of before go on working on the same ports. The plan is shown first, and asked about\n" +
			"unless --yes is given. What is there already stays as it is, so that the command can be run again: after\n" +
			"an interruption it goes on. What can't be carried over is listed by name. docs/importing.md says more.",
		RunE: func(cmd *cobra.Command, files []string) error {
			return s.runImport(cmd.Context(), f, func(o importer.Options) (importer.Read, error) { return read(cmd.Context(), files, o) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.node, "node", "", "name or id of the node that gets the inbounds")
	flags.StringVar(&f.prefix, "prefix", "", "put this before each user's name")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and change nothing")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	_ = cmd.MarkFlagRequired("node")
	s.output.AddTo(flags)
	return cmd
}

func (s *shared) runImport(ctx context.Context, f importFlags, read func(importer.Options) (importer.Read, error)) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	defer client.Close()
	node, err := client.Node(ctx, f.node)
	if err != nil {
		return err
	}
	r, err := read(importer.Options{Node: node.Name, Prefix: f.prefix, Now: time.Now()})
	if err != nil {
		return err
	}
	plan, err := sendImport(ctx, client, r, true)
	if err != nil {
		return err
	}
	if f.dryRun {
		return printAnswer(s, plan, showImport)
	}
	if plan.Added == (importCounts{}) { // as a plan it would say that something is to be done
		plan.DryRun = false
		return printAnswer(s, plan, showImport)
	}
	if !f.yes && cli.IsTerminal(os.Stdin) {
		if err := printAnswer(&shared{std: streams{out: s.std.err, err: s.std.err}}, plan, showImport); err != nil {
			return err
		}
	}
	if err := cli.Confirm(f.yes, os.Stdin, s.std.err, "Import this into node "+node.Name+"?"); err != nil {
		return err
	}
	done, err := sendImport(ctx, client, r, false)
	if err != nil {
		return fmt.Errorf("%w; run the command again to go on: what was added stays", err)
	}
	return printAnswer(s, done, showImport)
}

// importedAtOnce is how many users one request has: each is a transaction.
const importedAtOnce = 5000

// sendImport sends the import in parts. Each part has all inbounds and groups: those that an earlier
// part has added are there already.
func sendImport(ctx context.Context, client *coreapi.Client, r importer.Read, dryRun bool) (report importReport, err error) {
	report = importReport{DryRun: dryRun, Left: slices.Clone(r.Left), Notes: r.Notes, Protocols: []string{}}
	parts := slices.Collect(slices.Chunk(r.Import.Users, importedAtOnce))
	if len(parts) == 0 {
		parts = [][]coreapi.ImportUser{nil}
	}
	for n, users := range parts {
		part := r.Import
		part.DryRun, part.Users = dryRun, users
		done, _, err := client.Import(ctx, part)
		if err != nil {
			return report, err
		}
		if n == 0 { // the others say the same of them
			report.warnings = done.Texts
			for _, p := range done.Protocols {
				if p.State == coreapi.ImportAdded {
					report.Protocols = append(report.Protocols, p.Name)
				}
			}
			report.count("inbound", done.Protocols, func(c *importCounts) *int { return &c.Protocols })
			report.count("group", done.Groups, func(c *importCounts) *int { return &c.Groups })
		}
		report.count("user", done.Users, func(c *importCounts) *int { return &c.Users })
	}
	return report, nil
}

func (r *importReport) count(kind string, parts []coreapi.ImportedPart, of func(*importCounts) *int) {
	for _, p := range parts {
		switch p.State {
		case coreapi.ImportAdded:
			*of(&r.Added)++
		case coreapi.ImportPresent:
			*of(&r.Present)++
		default:
			r.Left = append(r.Left, importer.Left{Kind: kind, Name: p.Name, Reason: p.Reason})
		}
	}
}

func showImport(w io.Writer, r importReport) {
	word := "added"
	if r.DryRun {
		word = "would be added"
	}
	line(w, "", "INBOUNDS", "GROUPS", "USERS")
	line(w, word, r.Added.Protocols, r.Added.Groups, r.Added.Users)
	line(w, "there already", r.Present.Protocols, r.Present.Groups, r.Present.Users)
	for _, note := range r.Notes {
		line(w, "note: "+note)
	}
	if len(r.Left) > 0 {
		line(w, "")
		line(w, "NOT CARRIED OVER", "NAME", "REASON")
		for _, left := range r.Left {
			line(w, left.Kind, left.Name, left.Reason)
		}
	}
}
