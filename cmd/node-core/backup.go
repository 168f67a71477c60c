package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/internal/cli"
)

func newBackupCmd(s *shared) *cobra.Command {
	var d database
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a backup of the database and the certificate; Core may run",
		Long: "Write a backup of the database and the certificate to a new file. Core may run meanwhile: the backup\n" +
			"has the state of one moment. The file has the keys of all inbounds and subscriptions: keep it secret.",
		Example: "  node-core backup /var/backups/core-$(date +%F).db",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			p, err := d.postgres()
			if err != nil {
				return err
			}
			if p.URL != "" {
				err = corestore.BackupPostgres(cmd.Context(), p, words[0])
			} else {
				err = corestore.Backup(cmd.Context(), s.dataDir, words[0])
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.std.out, "Wrote %s. Restore it with: node-core restore %s\n", words[0], words[0])
			return err
		},
	}
	d.addTo(cmd.Flags())
	return cmd
}

func newRestoreCmd(s *shared) *cobra.Command {
	var yes bool
	var d database
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace the database by a backup; Core must not run",
		Long: "Replace the database and the certificate by a backup, or by a plain copy of core.db. Core must not\n" +
			"run. What happened since the backup was made is undone: nodes get the restored configuration, and\n" +
			"usage that they had delivered since is gone. The database from before is kept beside the new one.\n" +
			"A PostgreSQL has to be a new one.",
		Example: "  node-core restore /var/backups/core-2027-01-31.db\n  node-core restore backup.db --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			p, err := d.postgres()
			if err != nil {
				return err
			}
			if p.URL != "" {
				r, err := corestore.RestorePostgres(cmd.Context(), words[0], p, time.Now())
				if err != nil {
					return err
				}
				return showRestored(s, r)
			}
			unlock, err := corestore.Lock(s.dataDir)
			if err != nil {
				return err
			}
			defer unlock()
			if err := cli.Confirm(yes, os.Stdin, s.std.err, "Replace the database in "+s.dataDir+" by "+words[0]+"? What happened since that was made is undone"); err != nil {
				return err
			}
			r, err := corestore.Restore(cmd.Context(), words[0], s.dataDir, time.Now())
			if err != nil {
				return err
			}
			return showRestored(s, r)
		},
	}
	d.addTo(cmd.Flags())
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	s.output.AddTo(cmd.Flags())
	return cmd
}

func showRestored(s *shared, r corestore.Restored) error {
	if s.output == cli.JSON {
		return json.NewEncoder(s.std.out).Encode(r)
	}
	w := tabwriter.NewWriter(s.std.out, 0, 0, 2, ' ', 0)
	line(w, "restored, epoch", r.Epoch)
	if !r.MadeAt.IsZero() {
		line(w, "newest change in it", r.MadeAt)
	}
	if r.Kept != "" {
		line(w, "the database from before", r.Kept)
	}
	for _, name := range r.Missing {
		line(w, "warning", name+" is in neither the backup nor the data folder: Core makes another certificate, which nodes do not know")
	}
	return w.Flush()
}

func newCheckCmd(s *shared) *cobra.Command {
	var d database
	cmd := &cobra.Command{
		Use:     "check",
		Short:   "Check the database: its structure, and the sums of usage against the counters; Core may run",
		Example: "  node-core check\n  node-core check --data-dir /tmp/restored --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := d.postgres()
			if err != nil {
				return err
			}
			var c corestore.Checked
			if p.URL != "" {
				c, err = corestore.CheckPostgres(cmd.Context(), p)
			} else {
				c, err = corestore.Check(cmd.Context(), s.dataDir)
			}
			if err != nil {
				return err
			}
			if s.output == cli.JSON {
				return json.NewEncoder(s.std.out).Encode(c)
			}
			w := tabwriter.NewWriter(s.std.out, 0, 0, 2, ' ', 0)
			showChecked(w, c)
			return w.Flush()
		},
	}
	d.addTo(cmd.Flags())
	s.output.AddTo(cmd.Flags())
	return cmd
}

func showChecked(w io.Writer, c corestore.Checked) {
	line(w, "the database is sound")
	line(w, "nodes", c.Nodes)
	line(w, "users", c.Users)
	line(w, "subscriptions", c.Subscriptions)
	line(w, "usage rows", c.UsageRows)
	line(w, "bytes", "up", c.BytesUp, "down", c.BytesDown)
}
