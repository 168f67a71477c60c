package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/agent"
	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/cli"
	"nodeagent/internal/secret"
	"nodeagent/store"
)

// registerFlags are what `register` is told.
type registerFlags struct {
	settingFlags
	registration agent.Registration
	tokenFile    string
	caFile       string
	yes          bool
	timeout      time.Duration
}

func newRegisterCmd(std streams) *cobra.Command {
	var f registerFlags
	cmd := &cobra.Command{
		Use:   "register [TOKEN|-]",
		Short: "Make this host a node of a Core",
		Long: "Make this host a node of a Core, once. Give the join token that 'node-core node add' prints,\n" +
			"or the address of Core and a code. If the answer is lost, repeat the same command: it gets the same key.\n\n" +
			"Every user of this host can read the arguments of a command while it runs. The token is also read from\n" +
			"standard input (-), from --token-file, from NODE_AGENT_TOKEN, or from the credential node-agent.token of\n" +
			"systemd (LoadCredential=).",
		Example: "  node-agent register nj1_eyJ1Ijoi...\n" +
			"  node-agent register - <token\n" +
			"  node-agent register --core https://core.example --code K7QX-... --region eu",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.load()
			if err != nil {
				return err
			}
			if err := f.complete(args, cmd.InOrStdin()); err != nil {
				return err
			}
			return f.run(cmd, std, s)
		},
	}
	flags := cmd.Flags()
	f.add(flags, "config", "state-dir")
	r := &f.registration
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the join token; - is standard input")
	flags.StringVar(&r.Token.CoreURL, "core", "", "address of Core, https://HOST[:PORT][/PATH]")
	flags.StringVar((*string)(&r.Token.Code), "code", "", "one-time code that 'node-core node add' prints")
	flags.StringVar(&r.Name, "name", "", "name of the node (default the host's name)")
	flags.StringVar(&r.Host, "host", "", "name or address under which clients reach the node (default the host's name)")
	flags.StringVar(&r.IP, "ip", "", "IP address of the node (default the one of the route to Core)")
	flags.StringVar(&r.Region, "region", "", "free text, shown in Core's lists")
	flags.StringVar(&f.caFile, "core-ca", "", "PEM file with the authority that signed the certificate of Core")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long to wait for the answer of Core")
	flags.BoolVar(&r.Force, "force", false, "register again and forget the old identity")
	flags.BoolVar(&f.yes, "yes", false, "do not ask what becomes of what waits for Core")
	return cmd
}

// complete takes the token and fills in what was left out.
func (f *registerFlags) complete(args []string, stdin io.Reader) error {
	r := &f.registration
	source := tokenSource{file: f.tokenFile, stdin: stdin}
	if len(args) == 1 {
		source.argument = args[0]
	}
	switch named := source.argument != "" || source.file != ""; {
	case named && r.Token != (wire.JoinToken{}):
		return errors.New("give either a join token, or --core and --code")
	case r.Token == (wire.JoinToken{}):
		token, found, err := source.read()
		if err != nil {
			return err
		}
		if found {
			r.Token = token
		}
	}
	if r.Token.CoreURL == "" || r.Token.Code == "" {
		return errors.New("give a join token, or --core and --code")
	}
	core, err := coreclient.ParseURL(r.Token.CoreURL)
	if err != nil {
		return err
	}
	if r.Token.Pin != "" && core.Scheme != "https" {
		return fmt.Errorf("the token pins Core's certificate, and Core's address %s has no TLS: the code would cross the network in the clear; ask for a token with https://", core.Redacted())
	}
	if f.caFile != "" {
		if r.CAPEM, err = readCA(f.caFile); err != nil {
			return err
		}
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("read the host's name: %w; give --name and --host", err)
	}
	for _, name := range []*string{&r.Name, &r.Host} {
		if *name == "" {
			*name = host
		}
	}
	if r.IP == "" {
		r.IP = routeTo(core.Hostname())
	}
	return nil
}

// leave says what becomes of what waits for the Core that the node leaves, and asks a person at
// a terminal. It says nothing for a node that is not registered.
func leave(db *store.Store, yes bool, std streams) error {
	id, err := db.Identity()
	if errors.Is(err, store.ErrNotRegistered) {
		return nil
	} else if err != nil {
		return err
	}
	waiting, err := db.Waiting()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("this host is node %s at %s (outbox: %s). As another node, or at another Core, it forgets its configuration and serves nobody until that Core sends one; "+
		"what waits is set aside (see 'node-agent outbox list'). For another address of the same Core use 'node-agent core set'", id.NodeID, secret.URL(id.CoreURL), outboxText(waiting))
	if yes || !cli.IsTerminal(os.Stdin) {
		_, err = fmt.Fprintln(std.err, "node-agent: "+text)
		return err
	}
	return cli.Confirm(false, os.Stdin, std.err, text+". Register it again?")
}

// routeTo is this host's address on the way to another; empty where there is
// no way. Connecting a UDP socket sends nothing.
func routeTo(host string) string {
	conn, err := net.Dial("udp", net.JoinHostPort(host, "443"))
	if err != nil {
		return ""
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String()
}

// warnOfPlainHTTP warns before the code is sent over a network in the clear.
func warnOfPlainHTTP(std streams, coreURL string) {
	if core, err := coreclient.ParseURL(coreURL); err == nil && core.Scheme == "http" && !isLoopback(core.Hostname()) {
		fmt.Fprintf(std.err, "node-agent: warning: %s has no TLS, so that the code, and later the node's key, cross the network in the clear; interrupt this command (Ctrl+C), give Core a certificate and register with https://\n", core.Redacted())
	}
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func (f *registerFlags) run(cmd *cobra.Command, std streams, s settings) (err error) {
	r := f.registration
	client, err := coreclient.New(coreclient.Config{
		CoreURL: r.Token.CoreURL, Pin: r.Token.Pin, CAPEM: r.CAPEM, UserAgent: func() string { return userAgent("") },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	warnOfPlainHTTP(std, r.Token.CoreURL)
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	var id store.Identity
	if err := registering(s.StateDir, func(db *store.Store) (err error) {
		if r.Force {
			if err := leave(db, f.yes, std); err != nil {
				return err
			}
		}
		id, err = agent.Register(ctx, r, client, db)
		return err
	}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "Registered as node %s at %s.\nStart it with: systemctl enable --now node-agent (or: node-agent run)\n", id.NodeID, secret.URL(id.CoreURL))
	return err
}
