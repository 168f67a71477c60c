package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/internal/cli"
)

func newMigrateDBCmd(s *shared) *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use:   "migrate-db --from DATABASE --to DATABASE",
		Short: "Copy the database from SQLite to PostgreSQL, or back; Core must not run",
		Long: "Copy everything from one database to an empty one, from SQLite to PostgreSQL or back, with the\n" +
			"certificate. Core must not run. A database is sqlite:FOLDER (a data folder), postgres://USER@HOST/NAME,\n" +
			"or @FILE, a file with such a URL. The copy is one transaction, and each row of it is read again and\n" +
			"compared. Then start Core on the copy, and never again on the database from before: nodes would not\n" +
			"know which one to believe.",
		Example: "  node-core migrate-db --from sqlite:/var/lib/node-core --to @/etc/node-core/database\n" +
			"  node-core migrate-db --from postgres://core@db.example/core --to sqlite:/var/lib/node-core-new",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			source, err := placeOf("--from", from)
			if err != nil {
				return err
			}
			target, err := placeOf("--to", to)
			if err != nil {
				return err
			}
			moved, err := corestore.Move(cmd.Context(), source, target, func(table string, rows int64) {
				if rows > 0 {
					fmt.Fprintf(s.std.err, "%s: %d rows\n", table, rows)
				}
			})
			if err != nil {
				return err
			}
			return showMoved(s, moved)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "the database to read: sqlite:FOLDER, postgres://..., or @FILE")
	cmd.Flags().StringVar(&to, "to", "", "the empty database to write, in the same way")
	s.output.AddTo(cmd.Flags())
	return cmd
}

// placeOf reads a database of migrate-db. Its error has no password.
func placeOf(flag, text string) (p corestore.Place, err error) {
	if file, is := strings.CutPrefix(text, "@"); is {
		if text, err = oneOf(flag, "", file, ""); err != nil {
			return p, err
		}
	}
	if dir, is := strings.CutPrefix(text, "sqlite:"); is && dir != "" {
		dir = strings.TrimPrefix(dir, "//")
		if filepath.Base(dir) == "core.db" {
			dir = filepath.Dir(dir)
		}
		return corestore.Place{Dir: dir}, nil
	}
	if corestore.IsPostgres(text) {
		return corestore.Place{Postgres: corestore.Postgres{URL: text}}, nil
	}
	if text == "" {
		return p, errors.New(flag + " is missing; give sqlite:FOLDER, postgres://USER@HOST/NAME, or @FILE")
	}
	return p, fmt.Errorf("read %s: want sqlite:FOLDER, postgres://USER@HOST/NAME, or @FILE", flag)
}

func showMoved(s *shared, moved []corestore.MovedTable) error {
	if s.output == cli.JSON {
		return json.NewEncoder(s.std.out).Encode(moved)
	}
	w := tabwriter.NewWriter(s.std.out, 0, 0, 2, ' ', 0)
	rows := int64(0)
	for _, m := range moved {
		rows += m.Rows
	}
	line(w, "copied and compared", fmt.Sprintf("%d rows of %d tables", rows, len(moved)))
	line(w, "now", "start Core on the copy, and never again on the database from before")
	return w.Flush()
}
