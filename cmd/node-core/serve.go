package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/certs"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/sublink"
	"nodeagent/cmd/node-core/internal/webhook"
)

const (
	stopTimeout   = 5 * time.Second
	headerTimeout = 10 * time.Second
	// bodyTimeout bounds how long a node may take to send a body.
	bodyTimeout = time.Minute
	idleTimeout = 2 * time.Minute
	upkeepEvery = 24 * time.Hour
)

type serveFlags struct {
	listen       string
	publicURL    string
	certFile     string
	keyFile      string
	insecureHTTP bool
	database     database
	links        sublink.Options
	linksAt      []string // addresses under which applications fetch subscriptions
	apiListen    string
	webhooks     webhook.Allowed
	backups      backupFlags
	metrics      metricFlags
	reminders    corestore.Reminders
	timezone     string
}

func newServeCmd(s *shared) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run Core: serve nodes and the other commands",
		Long: "Run Core: serve nodes and the other commands. Nodes are served over TLS. Core makes a certificate\n" +
			"on its first start, and every join token has the pin of that certificate; --tls-cert and --tls-key\n" +
			"name another certificate.\n\n" +
			"The database is a file in the data folder, or a PostgreSQL that --database names. Several instances\n" +
			"may serve from one PostgreSQL, each with a data folder of its own.",
		Example: "  node-core serve --listen 0.0.0.0:8443 --public-url https://core.example:8443\n" +
			"  node-core serve --database-file /etc/node-core/database --public-url https://core.example",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), s, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "0.0.0.0:8443", "HOST:PORT to listen on for nodes")
	flags.StringVar(&f.publicURL, "public-url", "", "address in join tokens, under which nodes reach Core (default https://HOST:PORT)")
	flags.StringVar(&f.certFile, "tls-cert", "", "PEM file with a certificate of an authority that the nodes trust")
	flags.StringVar(&f.keyFile, "tls-key", "", "PEM file with the key of that certificate")
	f.database.addTo(flags)
	f.database.addDirectTo(flags)
	flags.BoolVar(&f.insecureHTTP, "insecure-http", false, "serve without TLS; only on a loopback address")
	flags.StringArrayVar(&f.linksAt, "subscription-url", nil, "address under which applications fetch subscriptions, for instance that of a proxy (default that of --public-url); may be repeated: the first one is the subscription's link, and the others are mirrors of it")
	flags.StringVar(&f.links.Title, "subscription-title", "VPN", "name of subscriptions in applications")
	flags.StringVar(&f.links.SupportURL, "support-url", "", "address of your support, which applications show")
	flags.StringVar(&f.timezone, "timezone", "", "IANA name of the zone in which periods of limits begin, such as Europe/Berlin; Core keeps it (default what was given last, at first UTC)")
	flags.StringVar(&f.apiListen, "api-listen", "", "HOST:PORT to serve the admin API on, which needs a token; "+apiNowhere+" for the unix socket alone (default the address of --listen)")
	flags.BoolVar(&f.webhooks.HTTP, "webhook-http", false, "allow webhooks whose address is http://")
	flags.BoolVar(&f.webhooks.AnyAddress, "webhook-any-address", false, "allow webhooks on link-local and metadata addresses")
	f.backups.addTo(flags)
	f.metrics.addTo(flags)
	flags.DurationVar(&f.reminders.Before, "remind-before", 72*time.Hour, "how long before a subscription's end there is an event that it comes near; 0 for none")
	flags.Int64Var(&f.reminders.Percent, "remind-at", 80, "percent of a subscription's limit at which there is an event that it is near; 0 for none")
	return cmd
}

// apiNowhere is the value of --api-listen that keeps the admin API off the network.
const apiNowhere = "none"

// setTimezone makes periods begin in the zone of --timezone.
func (f serveFlags) setTimezone(ctx context.Context, store *corestore.Store) error {
	if f.timezone == "" {
		return nil
	}
	zone, err := time.LoadLocation(f.timezone)
	if err != nil || f.timezone == "Local" { // which says another zone on each host
		return fmt.Errorf("read --timezone %q: want an IANA name such as Europe/Berlin, or UTC", f.timezone)
	}
	return store.SetTimezone(ctx, zone)
}

func (f serveFlags) validate() error {
	host, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return fmt.Errorf("read --listen: %w; want HOST:PORT", err)
	}
	if err := errors.Join(f.backups.validate(), f.metrics.validate(f.insecureHTTP)); err != nil {
		return err
	}
	switch {
	case (f.certFile == "") != (f.keyFile == ""):
		return errors.New("give both --tls-cert and --tls-key, or neither")
	case f.insecureHTTP && f.certFile != "":
		return errors.New("give either --insecure-http or a certificate")
	case f.insecureHTTP && host != "localhost" && !net.ParseIP(host).IsLoopback():
		return fmt.Errorf("--insecure-http is for a loopback address alone, and %s is none: the nodes' keys would cross the network in the clear", host)
	case f.reminders.Before < 0:
		return fmt.Errorf("--remind-before %s: want 0 or more", f.reminders.Before)
	case f.reminders.Percent < 0 || f.reminders.Percent > 99:
		return fmt.Errorf("--remind-at %d: want a percentage from 1 to 99, or 0 for never", f.reminders.Percent)
	case f.apiListen == "" || f.apiListen == apiNowhere:
		return nil
	}
	apiHost, _, err := net.SplitHostPort(f.apiListen)
	switch {
	case err != nil:
		return fmt.Errorf("read --api-listen: %w; want HOST:PORT, or %s", err, apiNowhere)
	case f.insecureHTTP && apiHost != "localhost" && !net.ParseIP(apiHost).IsLoopback():
		return fmt.Errorf("--insecure-http is for a loopback address alone, and %s is none: tokens would cross the network in the clear", apiHost)
	}
	return nil
}

// tls returns no configuration for plain HTTP, and no pin for a certificate
// that authorities vouch for. It watches that certificate's files until ctx ends. trouble says
// why nodes refuse the certificate that is served, and is empty where they do not.
func (f serveFlags) tls(ctx context.Context, dataDir string, log *slog.Logger) (config *tls.Config, pin string, trouble func() string, err error) {
	none := func() string { return "" }
	switch {
	case f.insecureHTTP:
		return nil, "", none, nil
	case f.certFile != "":
		files, err := certs.Watch(f.certFile, f.keyFile, log)
		if err != nil {
			return nil, "", none, err
		}
		go files.Run(ctx)
		go files.Remind(ctx)
		trouble = func() string {
			now, _ := files.Trouble(time.Now())
			return now
		}
		return &tls.Config{GetCertificate: files.Get, MinVersion: tls.VersionTLS12}, "", trouble, nil
	}
	cert, pin, err := certs.LoadOrCreate(dataDir)
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, pin, none, err
}

// public is the address in join tokens.
func (f serveFlags) public(listen *net.TCPAddr) (string, error) {
	if f.publicURL != "" {
		u, err := url.Parse(f.publicURL)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return "", fmt.Errorf("read --public-url %q: want https://HOST[:PORT][/PATH]", f.publicURL)
		}
		if u.Scheme == "http" && !f.insecureHTTP {
			return "", fmt.Errorf("--public-url %s has no TLS, and Core serves TLS: nodes would send their codes in the clear; want https://", f.publicURL)
		}
		return f.publicURL, nil
	}
	scheme := "https"
	if f.insecureHTTP {
		scheme = "http"
	}
	host := listen.IP.String()
	if listen.IP.IsUnspecified() {
		name, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("read the host's name: %w; give --public-url", err)
		}
		host = name
	}
	return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(listen.Port)), nil
}

// linkAddresses returns the address of subscriptions' links and those of the mirrors, without a slash at
// the end.
func linkAddresses(given []string, public string) (first string, mirrors []string, err error) {
	if len(given) == 0 || len(given) == 1 && given[0] == "" {
		given = []string{public}
	}
	all := make([]string, 0, len(given))
	for _, address := range given {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" {
			return "", nil, fmt.Errorf("read --subscription-url %q: want https://HOST[:PORT][/PATH]", address)
		}
		all = append(all, strings.TrimSuffix(address, "/"))
	}
	return all[0], all[1:], nil
}
