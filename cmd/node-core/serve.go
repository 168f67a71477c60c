package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/certs"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/cmd/node-core/internal/nodeapi"
	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/cmd/node-core/internal/sublink"
	"nodeagent/cmd/node-core/internal/webhook"
	"nodeagent/coreapi"
	"nodeagent/internal/journal"
	"nodeagent/internal/logkey"
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
	webhookHTTP  bool
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
	flags.BoolVar(&f.webhookHTTP, "webhook-http", false, "allow webhooks whose address is http://")
	f.backups.addTo(flags)
	f.metrics.addTo(flags)
	flags.DurationVar(&f.reminders.Before, "remind-before", 72*time.Hour, "how long before a subscription's end there is an event that it comes near; 0 for none")
	flags.Int64Var(&f.reminders.Percent, "remind-at", 80, "percent of a subscription's limit at which there is an event that it is near; 0 for none")
	return cmd
}

// apiNowhere is the value of --api-listen that keeps the admin API off the network.
const apiNowhere = "none"

func serve(ctx context.Context, s *shared, f serveFlags) (err error) {
	log := slog.New(journal.NewHandler(s.std.err, journal.Reads(), slog.HandlerOptions{}, func(out io.Writer, o *slog.HandlerOptions) slog.Handler {
		return slog.NewTextHandler(out, o)
	}))
	if err := f.validate(); err != nil {
		return err
	}
	unlock, err := corestore.Lock(s.dataDir)
	if err != nil {
		return err
	}
	defer unlock()
	store, err := f.database.open(ctx, s.dataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := f.setTimezone(ctx, store); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var background sync.WaitGroup // for those that use the store until they end
	defer func() { stop(); background.Wait() }()
	admin, err := adminapi.Listen(ctx, s.dataDir)
	if err != nil {
		return err
	}
	defer admin.Close()
	if !f.insecureHTTP && f.certFile == "" {
		if err := store.ShareCertificate(ctx, s.dataDir, func() error { return certs.Make(s.dataDir) }); err != nil {
			return err
		}
	}
	tlsConfig, pin, trouble, err := f.tls(ctx, s.dataDir, log)
	if err != nil {
		return err
	}
	sockets := takeHandover(log)
	listener, err := sockets.listen(nodesSocket, f.listen)
	if err != nil {
		return fmt.Errorf("listen for nodes: %w; choose another address or port with --listen", err)
	}
	defer listener.Close()
	public, err := f.public(listener.Addr().(*net.TCPAddr))
	if err != nil {
		return err
	}

	if f.links.URL, f.links.Mirrors, err = linkAddresses(f.linksAt, public); err != nil {
		return err
	}
	wake := hub.New()
	store.OnEvent(wake.Happened)
	routes := http.NewServeMux()
	routes.Handle(corestore.LinkPrefix, sublink.New(store, f.links, log.With(logkey.Component, "links")))
	nodes := nodeapi.New(ctx, store, wake, log.With(logkey.Component, "nodes"))
	routes.Handle("/", nodes.Handler())
	api := adminapi.NewServer(ctx, store, wake, public, pin, log.With(logkey.Component, "admin"))
	api.LinksAt(f.links.URL, f.links.Mirrors...)
	hooks := webhook.New(store, wake, f.webhookHTTP, log.With(logkey.Component, "webhooks"))
	api.SendsBy(hooks)
	requests := newRequestMetrics()
	servers, err := f.servers(tlsConfig, listener, sockets, requests.watch(routes), requests.watch(adminapi.Warned(api.TokenHandler(), trouble)), log)
	if err != nil {
		return err
	}
	postgres, err := f.database.postgres()
	if err != nil {
		return err
	}
	scheduled, err := newBackups(f.backups, s.dataDir, postgres, store, log)
	if err != nil {
		return err
	}
	measured, err := s.serveMetrics(f.metrics, tlsConfig, log, requests.total, requests.seconds, newCoreMetrics(store, nodes.Builds, scheduled))
	if err != nil {
		return err
	}
	servers = append(servers, measured...)
	sockets.done()
	servers = append(servers, served{listener: admin, server: &http.Server{
		Handler: tellPanics(requests.watch(adminapi.Warned(api.SocketHandler(), trouble)), log), ReadHeaderTimeout: headerTimeout,
	}})
	go keepUp(ctx, store, log)
	go store.Listen(ctx, corestore.News{
		Changed: wake.Changed, Reported: wake.Reported, Happened: wake.Happened,
		Failed: func(err error) {
			log.Warn("no news of other instances until the database answers again", logkey.Error, err)
		},
	})
	if warning := f.database.warning(); warning != "" {
		log.Warn("the command line has a secret", logkey.Advice, warning)
	}
	background.Go(func() { hooks.Run(ctx) })
	if scheduled != nil {
		background.Go(func() { scheduled.run(ctx) })
	}
	go store.WatchNodes(ctx, func(err error) {
		log.Error("look for nodes that went offline; trying again in a while", logkey.Error, err)
	})
	go store.Remind(ctx, f.reminders, func(err error) {
		log.Error("look for subscriptions to remind of; trying again in a minute", logkey.Error, err)
	})
	go store.Enforce(ctx, wake.Changed, func(err error) { log.Error("enforce limits; trying again in a minute", logkey.Error, err) })
	log.Info("node-core serves", logkey.Version, version, logkey.Listen, listener.Addr().String(), logkey.PublicURL, public, logkey.DataDir, s.dataDir)
	go tellSystemd(ctx, store.Nodes)
	return serveUntil(ctx, servers)
}

// served is a server and where it listens.
type served struct {
	server   *http.Server
	listener net.Listener
}

// servers returns the servers for the network: of the node routes, and of the admin API, which
// is beside them unless --api-listen says another place.
func (f serveFlags) servers(tlsConfig *tls.Config, listener net.Listener, sockets *handover, nodes, api http.Handler, log *slog.Logger) ([]served, error) {
	server := func(handler http.Handler) *http.Server {
		return &http.Server{
			Handler: tellPanics(handler, log), TLSConfig: tlsConfig.Clone(), // a server changes its own
			ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, IdleTimeout: idleTimeout,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		}
	}
	switch f.apiListen {
	case "":
		both := http.NewServeMux()
		both.Handle("/", nodes)
		both.Handle(coreapi.Prefix+"/", api)
		return []served{{server(both), listener}}, nil
	case apiNowhere:
		return []served{{server(nodes), listener}}, nil
	}
	own, err := sockets.listen(apiSocket, f.apiListen)
	if err != nil {
		return nil, fmt.Errorf("listen for the admin API: %w; choose another address or port with --api-listen", err)
	}
	log.Info("the admin API has an address of its own", logkey.Listen, own.Addr().String())
	return []served{{server(nodes), listener}, {server(api), own}}, nil
}

// serveUntil serves all until ctx ends, or one of them does.
func serveUntil(ctx context.Context, all []served) (err error) {
	failed := make(chan error, len(all))
	for _, s := range all {
		go func() {
			if s.server.TLSConfig == nil {
				failed <- s.server.Serve(s.listener)
				return
			}
			failed <- s.server.ServeTLS(s.listener, "", "")
		}()
	}
	notify(daemon.SdNotifyReady)
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, s := range all {
		err = errors.Join(err, s.server.Shutdown(stopping))
	}
	return err
}

// tellPanics answers a request that panics, and logs where.
func tellPanics(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				// The path itself can have a secret: the token of a link, or a UUID.
				log.Error("panic; please report it", logkey.Route, cmp.Or(r.Pattern, "unknown"), logkey.Panic, p, logkey.Stack, string(debug.Stack()))
				problem.New(http.StatusInternalServerError, "internal", "Core failed over this request; its log says where").Write(w)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func keepUp(ctx context.Context, store *corestore.Store, log *slog.Logger) {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		if err := store.Upkeep(ctx, time.Now()); err != nil && ctx.Err() == nil {
			log.Error("forget and merge old rows; trying again tomorrow", logkey.Error, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

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
