package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/agent/identity"
	"nodeagent/internal/cli"
	"nodeagent/internal/secret"
	"nodeagent/store"
)

// moveTimeout bounds how long a Core at a new address is waited for.
const moveTimeout = 30 * time.Second

// maxMove bounds the body of a request to move, which has certificates.
const maxMove = 1 << 20

// serveIdentity adds what `node-agent core set` and `node-agent adopt` ask to the daemon's
// socket.
func serveIdentity(mux *http.ServeMux, node *identity.Node) {
	answer := func(w http.ResponseWriter, err error) {
		switch {
		case errors.Is(err, identity.ErrOtherCore):
			http.Error(w, err.Error(), http.StatusConflict)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		default:
			_, _ = io.WriteString(w, "{}")
		}
	}
	mux.HandleFunc("POST /core", func(w http.ResponseWriter, r *http.Request) {
		var m identity.Move
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxMove)).Decode(&m)
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), moveTimeout)
			defer cancel()
			err = node.SetCore(ctx, m)
		}
		answer(w, err)
	})
	mux.HandleFunc("POST /adopt", func(w http.ResponseWriter, _ *http.Request) { answer(w, node.Adopt()) })
}

func newCoreCmd(std streams) *cobra.Command {
	cmd := &cobra.Command{Use: "core", Short: "Say where Core is", Example: "  node-agent core set https://core2.example:8443"}
	cmd.AddCommand(newCoreSetCmd(std))
	return cmd
}

func newCoreSetCmd(std streams) *cobra.Command {
	var flags settingFlags
	var caFile string
	var yes bool
	cmd := &cobra.Command{
		Use:   "set URL",
		Short: "Move the node to another address of its Core; it keeps everything",
		Long: "Move the node to another address of its Core. The node keeps its key, its configuration and what\n" +
			"waits for Core. Core is asked there first, and nothing changes unless it accepts the node's key. The\n" +
			"daemon may run, and then goes to the new address at once.",
		Example: "  node-agent core set https://core2.example:8443\n  node-agent core set https://core.example --core-ca /etc/ssl/our-ca.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := flags.load()
			if err != nil {
				return err
			}
			m := identity.Move{URL: args[0], Other: yes}
			if caFile != "" {
				if m.CAPEM, err = readCA(caFile); err != nil {
					return err
				}
			}
			err = setCore(cmd.Context(), s, m)
			if errors.Is(err, identity.ErrOtherCore) {
				question := fmt.Sprintf("%v. Outbox: %s. Go to it?", err, waitingText(cmd.Context(), s))
				if err := cli.Confirm(false, os.Stdin, std.err, question); err != nil {
					return err
				}
				m.Other = true
				err = setCore(cmd.Context(), s, m)
			}
			if err == nil {
				_, err = fmt.Fprintf(std.out, "The node's Core is at %s.\n", secret.URL(m.URL))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&caFile, "core-ca", "", "PEM file with the authority that signed the certificate of Core there; without it, the certificate has to be the one that the node knows")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask where another Core accepts the node's key there")
	flags.add(cmd.Flags(), "config", "state-dir", "runtime-dir")
	return cmd
}

// waitingText says what waits for Core, as the daemon or the state folder has it.
func waitingText(ctx context.Context, s settings) string {
	var state outboxState
	err := ask(ctx, s.RuntimeDir, http.MethodGet, "/outbox", &state)
	if errors.Is(err, errNotRunning) {
		var db *store.Store
		if db, err = store.Open(s.StateDir); err == nil {
			state.Waiting, err = db.Waiting()
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		return "unknown (" + err.Error() + ")"
	}
	return outboxText(state.Waiting)
}

// setCore asks the daemon to move, and moves in the state folder where none runs.
func setCore(ctx context.Context, s settings, m identity.Move) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the move: %w", err)
	}
	return withIdentity(ctx, s, "/core", body, func(node *identity.Node) error {
		ctx, cancel := context.WithTimeout(ctx, moveTimeout)
		defer cancel()
		return node.SetCore(ctx, m)
	})
}

// withIdentity posts to the daemon, and runs the same on the state folder where no daemon runs.
func withIdentity(ctx context.Context, s settings, route string, body []byte, otherwise func(*identity.Node) error) error {
	err := post(ctx, s.RuntimeDir, route, body)
	if !errors.Is(err, errNotRunning) {
		return err
	}
	if err := checkRegistered(s.StateDir); err != nil {
		return err
	}
	db, err := store.Open(s.StateDir)
	if err != nil {
		return err
	}
	node, err := openIdentity(db, slog.New(slog.DiscardHandler))
	if err == nil {
		err = otherwise(node)
	}
	return errors.Join(err, db.Close())
}

func newAdoptCmd(std streams) *cobra.Command {
	var flags settingFlags
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Let this machine take the place of the one that registered",
		Long: "Let this machine take the place of the one that registered, after a reinstallation of the system or a\n" +
			"move of the state folder. Where the other machine still runs, do not: register this one as another node.",
		Example: "  node-agent adopt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := flags.load()
			if err != nil {
				return err
			}
			if err := withIdentity(cmd.Context(), s, "/adopt", nil, (*identity.Node).Adopt); err != nil {
				return err
			}
			_, err = fmt.Fprintln(std.out, "This machine is the node's machine.")
			return err
		},
	}
	flags.add(cmd.Flags(), "config", "state-dir", "runtime-dir")
	return cmd
}

// readCA reads authorities from a PEM file.
func readCA(path string) (string, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read Core's authority: %w", err)
	}
	if !strings.Contains(string(pem), "-----BEGIN CERTIFICATE-----") {
		return "", fmt.Errorf("read Core's authority: %s has no PEM certificate", path)
	}
	return string(pem), nil
}
