package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/certs"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/cmd/node-core/internal/nodeapi"
	"nodeagent/cmd/node-core/internal/sublink"
	"nodeagent/cmd/node-core/internal/webhook"
	"nodeagent/internal/journal"
	"nodeagent/internal/logkey"
)

// instance is a Core that serves: serve makes it, in the order of its fields.
type instance struct {
	s     *shared
	f     serveFlags
	log   *slog.Logger
	store *corestore.Store
	wake  *hub.Hub

	// Where it listens, and the address in join tokens.
	admin    net.Listener // the unix socket
	nodes    net.Listener
	sockets  *handover
	tls      *tls.Config // nil for plain HTTP
	pin      string
	trouble  func() string // why nodes refuse the certificate; empty where they do not
	public   string
	nodesAPI *nodeapi.API

	hooks   *webhook.Sender
	backups *backups // nil for none
}

// serve runs Core until ctx ends or a server fails.
func serve(ctx context.Context, s *shared, f serveFlags) (err error) {
	if err := f.validate(); err != nil {
		return err
	}
	c := instance{s: s, f: f, wake: hub.New(), log: slog.New(journal.NewHandler(s.std.err, journal.Reads(), slog.HandlerOptions{}, func(out io.Writer, o *slog.HandlerOptions) slog.Handler {
		return slog.NewTextHandler(out, o)
	}))}
	unlock, err := corestore.Lock(s.dataDir)
	if err != nil {
		return err
	}
	defer unlock()
	if c.store, err = f.database.open(ctx, s.dataDir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.store.Close()) }()
	if err := f.setTimezone(ctx, c.store); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var background sync.WaitGroup // for those that use the store until they end
	defer func() { stop(); background.Wait() }()
	if err := c.listen(ctx); err != nil {
		return err
	}
	defer c.close()
	servers, err := c.servers(ctx)
	if err != nil {
		return err
	}
	c.sockets.done()
	c.loops(ctx, &background)
	c.log.Info("node-core serves", logkey.Version, version, logkey.Listen, c.nodes.Addr().String(), logkey.PublicURL, c.public, logkey.DataDir, s.dataDir)
	go tellSystemd(ctx, c.store.CountNodes)
	return serveUntil(ctx, servers)
}

// listen opens the unix socket for commands and the listener for nodes. Core makes its certificate here
// at the first start.
func (c *instance) listen(ctx context.Context) (err error) {
	if c.admin, err = adminapi.Listen(ctx, c.s.dataDir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if !c.f.insecureHTTP && c.f.certFile == "" {
		if err := c.store.ShareCertificate(ctx, c.s.dataDir, func() error { return certs.Make(c.s.dataDir) }); err != nil {
			return err
		}
	}
	if c.tls, c.pin, c.trouble, err = c.f.tls(ctx, c.s.dataDir, c.log); err != nil {
		return err
	}
	c.sockets = takeHandover(c.log)
	if c.nodes, err = c.sockets.listen(nodesSocket, c.f.listen); err != nil {
		return fmt.Errorf("listen for nodes: %w; choose another address or port with --listen", err)
	}
	if c.public, err = c.f.public(c.nodes.Addr().(*net.TCPAddr)); err != nil {
		return err
	}
	c.f.links.URL, c.f.links.Mirrors, err = linkAddresses(c.f.linksAt, c.public)
	return err
}

func (c *instance) close() {
	_ = c.admin.Close()
	if c.nodes != nil {
		_ = c.nodes.Close()
	}
}

// servers makes the servers: for nodes and links, for the admin API on the network and on the unix
// socket, and for metrics.
func (c *instance) servers(ctx context.Context) ([]served, error) {
	c.store.OnEvent(c.wake.Happened)
	routes := http.NewServeMux()
	links := sublink.New(c.store, c.f.links, c.log.With(logkey.Component, "links"))
	routes.Handle(corestore.LinkPrefix, links)
	c.nodesAPI = nodeapi.New(ctx, c.store, c.wake, c.log.With(logkey.Component, "nodes"))
	routes.Handle("/", c.nodesAPI.Handler())
	api := adminapi.NewServer(ctx, c.store, c.wake, c.public, c.pin, c.log.With(logkey.Component, "admin"))
	api.LinksAt(c.f.links.URL, c.f.links.Mirrors...)
	c.hooks = webhook.New(c.store, c.wake, c.f.webhooks, c.log.With(logkey.Component, "webhooks"))
	api.SendsBy(c.hooks)
	api.FilesBy(links)
	requests := newRequestMetrics(api.Nouns()...)
	all, err := c.f.servers(c.tls, c.nodes, c.sockets, requests.watch(routes), requests.watch(adminapi.Warned(api.TokenHandler(), c.trouble)), c.log)
	if err != nil {
		return nil, err
	}
	postgres, err := c.f.database.postgres()
	if err != nil {
		return nil, err
	}
	if c.backups, err = newBackups(c.f.backups, c.s.dataDir, postgres, c.store, c.log); err != nil {
		return nil, err
	}
	metrics, err := c.s.serveMetrics(c.f.metrics, c.tls, c.log, requests.total, requests.seconds, newCoreMetrics(c.store, c.nodesAPI.Builds, c.backups))
	if err != nil {
		return nil, err
	}
	return append(append(all, metrics...), served{listener: c.admin, server: &http.Server{
		Handler: tellPanics(requests.watch(adminapi.Warned(api.SocketHandler(), c.trouble)), c.log), ReadHeaderTimeout: headerTimeout,
	}}), nil
}

// loops starts the loops of Core, which end with ctx. The store may be closed once background has
// ended: the other loops take the error of a closed store.
func (c *instance) loops(ctx context.Context, background *sync.WaitGroup) {
	failed := func(what string) func(error) {
		return func(err error) { c.log.Error(what, logkey.Error, err) } //nolint:sloglint // each caller gives a constant
	}
	if warning := c.f.database.warning(); warning != "" {
		c.log.Warn("the command line has a secret", logkey.Advice, warning)
	}
	background.Go(func() { c.hooks.Run(ctx) })
	if c.backups != nil {
		background.Go(func() { c.backups.run(ctx) })
	}
	go paceGarbage(ctx)
	go keepUp(ctx, c.store, c.log)
	go c.store.Listen(ctx, corestore.News{Changed: c.wake.Changed, Reported: c.wake.Reported, Happened: c.wake.Happened, Failed: func(err error) {
		c.log.Warn("no news of other instances until the database answers again", logkey.Error, err)
	}})
	go c.store.WatchNodes(ctx, failed("look for nodes that went offline; trying again in a while"))
	go c.store.Remind(ctx, c.f.reminders, failed("look for subscriptions to remind of; trying again in a minute"))
	go c.store.Enforce(ctx, c.wake.Changed, failed("enforce limits; trying again in a minute"))
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
