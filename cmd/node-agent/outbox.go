package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/internal/cli"
	"nodeagent/store"
)

// outboxState is what `outbox list` shows.
type outboxState struct {
	Waiting store.Waiting   `json:"waiting"`
	Aside   []store.Aside   `json:"setAside"`
	Damaged []store.Damaged `json:"damaged"`
}

// serveOutbox adds what `node-agent outbox` asks to the daemon's socket.
func serveOutbox(mux *http.ServeMux, db *store.Store) {
	answer := func(w http.ResponseWriter, v any, err error) {
		switch {
		case errors.Is(err, store.ErrNoBatch):
			http.Error(w, err.Error(), http.StatusNotFound)
		case errors.Is(err, store.ErrDamaged):
			http.Error(w, err.Error(), http.StatusConflict)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v) // the command has gone, then
		}
	}
	mux.HandleFunc("GET /outbox", func(w http.ResponseWriter, _ *http.Request) {
		var state outboxState
		var err error
		if state.Waiting, err = db.Waiting(); err == nil {
			state.Aside, err = db.ListAside()
		}
		if err == nil {
			state.Damaged, err = db.ListDamaged()
		}
		answer(w, state, err)
	})
	withID := func(do func(id uint64) (any, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			id, err := batchID(r.PathValue("id"))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			v, err := do(id)
			answer(w, v, err)
		}
	}
	mux.HandleFunc("GET /outbox/{id}", withID(func(id uint64) (any, error) {
		body, err := db.ShowAside(id)
		return json.RawMessage(body), err
	}))
	mux.HandleFunc("POST /outbox/{id}/retry", withID(func(id uint64) (any, error) { return struct{}{}, db.RetryAside(id) }))
	mux.HandleFunc("POST /outbox/{id}/drop", withID(func(id uint64) (any, error) { return struct{}{}, db.DropAside(id) }))
}

// batchID reads the id of a batch that is set aside.
func batchID(word string) (uint64, error) {
	id, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no id; 'node-agent outbox list' shows the ids", word)
	}
	return id, nil
}

func newOutboxCmd(std streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "outbox",
		Short: "Show and mend what waits for Core and what Core refused for good",
		Long: "Show and mend what waits for Core and what Core refused for good. A batch that Core refused is set\n" +
			"aside and kept, until retry puts it back into its queue or drop deletes it. Values of the state file\n" +
			"that were found damaged are listed too; they can be shown and dropped.",
		Example: "  node-agent outbox list\n  node-agent outbox show 3\n  node-agent outbox retry 3",
	}
	cmd.AddCommand(
		newOutboxListCmd(std),
		newOutboxItemCmd(std, "show", "Print the request of a batch that is set aside, or a damaged value, JSON", http.MethodGet, ""),
		newOutboxItemCmd(std, "retry", "Put a batch back into its queue", http.MethodPost, "/retry"),
		newOutboxItemCmd(std, "drop", "Delete a batch or a damaged value for good; its rows are lost", http.MethodPost, "/drop"),
	)
	return cmd
}

func newOutboxListCmd(std streams) *cobra.Command {
	var flags settingFlags
	var output cli.Output
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what waits and what is set aside",
		Example: "  node-agent outbox list\n  node-agent outbox list --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := flags.load()
			if err != nil {
				return err
			}
			var state outboxState
			if err := ask(cmd.Context(), s.RuntimeDir, http.MethodGet, "/outbox", &state); err != nil {
				return err
			}
			if output == cli.JSON {
				return json.NewEncoder(std.out).Encode(state)
			}
			w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintf(w, "waiting\t%s\n", outboxText(state.Waiting))
			_, _ = fmt.Fprintf(w, "in use\t%d of %d bytes\n", state.Waiting.UsedBytes, state.Waiting.LimitBytes)
			for _, a := range state.Aside {
				_, _ = fmt.Fprintf(w, "set aside %d\t%s, %d rows, %s: %s\n", a.ID, a.Kind, a.Rows, a.At.Format(time.RFC3339), cli.Printable(a.Reason))
			}
			for _, d := range state.Damaged {
				_, _ = fmt.Fprintf(w, "damaged %d\t%s, %s: %s\n", d.ID, d.At.Format(time.RFC3339), d.Meaning(), cli.Printable(d.Reason))
			}
			return w.Flush()
		},
	}
	flags.add(cmd.Flags(), "config", "runtime-dir")
	output.AddTo(cmd.Flags())
	return cmd
}

func newOutboxItemCmd(std streams, verb, short, method, suffix string) *cobra.Command {
	var flags settingFlags
	cmd := &cobra.Command{
		Use:     verb + " ID",
		Short:   short,
		Example: "  node-agent outbox " + verb + " 3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := batchID(args[0])
			if err != nil {
				return err
			}
			s, err := flags.load()
			if err != nil {
				return err
			}
			var answer json.RawMessage
			if err := ask(cmd.Context(), s.RuntimeDir, method, fmt.Sprintf("/outbox/%d%s", id, suffix), &answer); err != nil {
				return err
			}
			if method == http.MethodGet {
				_, err = fmt.Fprintln(std.out, string(answer))
			}
			return err
		},
	}
	flags.add(cmd.Flags(), "config", "runtime-dir")
	return cmd
}
