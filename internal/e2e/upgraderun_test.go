package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/namespace"
	"nodeagent/xray/parse"
)

// ownUpgradeAddresses returns true in a network namespace that has the addresses and ports
// of the fixtures. Outside of one it runs the test again in a new namespace and returns
// false.
func ownUpgradeAddresses(t *testing.T) bool {
	t.Helper()
	namespace.Parallel(t)
	return inside(t, "ip address add "+upgradeTargetIP+"/32 dev lo")
}

// upgradeRun has the servers at the ports of the fixtures, the stock clients, and the sums
// that the target counted.
type upgradeRun struct {
	*world
	target    *Target
	clients   map[string]*Client // by the way's name
	usage     map[upgradeAccount]Traffic
	outbounds map[string]Traffic
}

func newUpgradeRun(t *testing.T) *upgradeRun {
	t.Helper()
	r := &upgradeRun{
		world:   &world{t: t, ctx: t.Context(), dir: t.TempDir(), progs: programs(t)},
		clients: map[string]*Client{}, usage: map[upgradeAccount]Traffic{}, outbounds: map[string]Traffic{},
	}
	r.target = r.world.target()
	forwardTo(t, upgradeTarget, r.target.Addr())
	r.startSite()
	return r
}

// startSite starts the site that REALITY borrows. It does not log the connections that end
// in their handshake.
func (r *upgradeRun) startSite() {
	r.t.Helper()
	l, err := net.Listen("tcp", loopback(upgradeSitePort))
	must(r.t, err)
	site := httptest.NewUnstartedServer(http.NotFoundHandler())
	must(r.t, site.Listener.Close())
	site.Listener = l
	site.TLS = &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}
	site.Config.ErrorLog = log.New(io.Discard, "", 0)
	site.StartTLS()
	r.t.Cleanup(site.Close)
}

// runCore starts a node-core on a free port. Its join tokens have the address of the front.
func (r *upgradeRun) runCore() {
	r.t.Helper()
	port, err := FreePort()
	must(r.t, err)
	r.core = &Core{path: r.progs.Core, dir: filepath.Join(r.dir, "core"), listen: loopback(port)}
	must(r.t, os.MkdirAll(r.core.dir, 0o700))
	r.core.process, err = start(r.core.dir+".log", r.progs.Core, "serve", "--data-dir", r.core.dir, "--listen", r.core.listen, "--public-url", "https://"+loopback(upgradeCorePort))
	must(r.t, err)
	core := r.core.process
	r.t.Cleanup(func() {
		core.Kill()
		r.showLog("core", core)
	})
	must(r.t, Eventually(r.ctx, func() error {
		if core.ended() {
			return fmt.Errorf("node-core ended: %s", core.Log())
		}
		var nodes []any
		return r.core.Do(r.ctx, &nodes, "node", "list")
	}))
}

// startAgent starts the daemon. The end of the test kills it.
func (r *upgradeRun) startAgent() {
	r.t.Helper()
	must(r.t, r.agent.Start(r.ctx))
	daemon := r.agent.process
	r.t.Cleanup(func() {
		daemon.Kill()
		r.showLog("agent", daemon)
	})
}

// dialWay opens a connection and moves a first byte.
func (r *upgradeRun) dialWay(way upgradeWay) net.Conn {
	r.t.Helper()
	if r.clients[way.Name] == nil {
		r.clients[way.Name] = r.client(way.ClientConfig)
	}
	conn, err := r.clients[way.Name].Dial(way.Dial)
	must(r.t, err)
	r.t.Cleanup(func() { _ = conn.Close() })
	r.exchange(conn, way, 0, 1) // a first payload of Trojan must be small
	return conn
}

// newClients ends the stock clients. The next connections start new ones.
func (r *upgradeRun) newClients() {
	for _, c := range r.clients {
		c.Kill()
	}
	clear(r.clients)
}

// exchange moves bytes and adds what the target counted to the run's sums. A connection
// that ends fails the test at once.
func (r *upgradeRun) exchange(conn net.Conn, way upgradeWay, up, down int64) {
	r.t.Helper()
	before := r.target.Traffic()
	if err := bounded(conn, up, down); err != nil {
		r.t.Fatalf("%s: the connection ended: %v", way.Name, err)
	}
	after := r.target.Traffic()
	moved := Traffic{after.Up - before.Up, after.Down - before.Down}
	r.usage[way.Account] = r.usage[way.Account].plus(moved)
	r.outbounds[way.Outbound] = r.outbounds[way.Outbound].plus(moved)
}

// move moves bytes on a connection for each way.
func (r *upgradeRun) move(ways []upgradeWay, up, down int64) {
	r.t.Helper()
	for i, way := range ways {
		conn := r.dialWay(way)
		r.exchange(conn, way, up+int64(i), down+int64(i))
		must(r.t, conn.Close())
	}
}

// upgradeOutbox is what `outbox list` prints.
type upgradeOutbox struct {
	Waiting struct {
		Batches map[string]int `json:"batches"`
		Aside   int            `json:"aside"`
	} `json:"waiting"`
	SetAside []struct {
		ID     uint64 `json:"id"`
		Kind   string `json:"kind"`
		Rows   int    `json:"rows"`
		Reason string `json:"reason"`
	} `json:"setAside"`
}

func (o upgradeOutbox) batches() (n int) {
	for _, batches := range o.Waiting.Batches {
		n += batches
	}
	return n
}

func (r *upgradeRun) outbox() (o upgradeOutbox, err error) {
	return o, errors.Join(err, outputJSON(r.ctx, &o, r.progs.Agent, "outbox", "list", "--runtime-dir", r.agent.file("run")))
}

// aside returns the batches that are set aside, by `outbox list` and `outbox show`.
func (r *upgradeRun) aside() (all []upgradeAside) {
	r.t.Helper()
	list, err := r.outbox()
	must(r.t, err)
	for _, a := range list.SetAside {
		body, stderr, err := output(r.ctx, r.progs.Agent, "outbox", "show", itoa(int(a.ID)), "--runtime-dir", r.agent.file("run"))
		if err != nil {
			r.t.Fatalf("outbox show %d: %v: %s", a.ID, err, stderr)
		}
		all = append(all, upgradeAside{a.Kind, a.Rows, a.Reason, json.RawMessage(body)})
	}
	return all
}

// inbounds returns the inbounds of `status`, and an error where one does not run.
func (r *upgradeRun) inbounds() (all []upgradeInbound, err error) {
	var status struct {
		Engines struct {
			Xray struct {
				Inbounds []struct {
					upgradeInbound
					State string `json:"state"`
					Error string `json:"error"`
				} `json:"inbounds"`
			} `json:"xray"`
		} `json:"engines"`
	}
	if err := outputJSON(r.ctx, &status, r.progs.Agent, "status", "--runtime-dir", r.agent.file("run")); err != nil {
		return nil, err
	}
	for _, in := range status.Engines.Xray.Inbounds {
		if in.State != "running" {
			return nil, fmt.Errorf("inbound %s is %s: %s", in.Tag, in.State, in.Error)
		}
		all = append(all, in.upgradeInbound)
	}
	return all, nil
}

// coreCommands returns the commands whose output the fixture keeps.
func coreCommands(subscriptions []Subscription) [][]string {
	commands := [][]string{
		{"node", "list"},
		{"node", "show", upgradeNode},
		{"node", "errors"},
		{"protocol", "list"},
		{"outbound", "list"},
		{"user", "list"},
		{"subscription", "list"},
		{"usage"},
		{"events"},
	}
	for _, s := range subscriptions {
		commands = append(commands, []string{"subscription", "show", s.UUID})
	}
	return commands
}

// coreSums returns the sums of a node-core, by its commands.
func coreSums(t *testing.T, core *Core) upgradeSums {
	t.Helper()
	ctx := t.Context()
	sums := upgradeSums{usage: map[upgradeAccount]Traffic{}, outbounds: map[string]Traffic{}}
	var rows []UsageRow
	must(t, core.Do(ctx, &rows, "usage", "--limit", "100000"))
	for _, r := range rows {
		account := upgradeAccount{User: r.UserID, Protocol: r.NodeProtocolID}
		if r.SubscriptionID != nil {
			account.Subscription = *r.SubscriptionID
		}
		sums.usage[account] = sums.usage[account].plus(Traffic{r.BytesUp, r.BytesDown})
	}
	node, err := core.Node(ctx, upgradeNode)
	must(t, err)
	for _, o := range node.Outbounds {
		if o.TrafficBytesUp+o.TrafficBytesDown > 0 {
			sums.outbounds[o.Tag] = Traffic{o.TrafficBytesUp, o.TrafficBytesDown}
		}
	}
	must(t, core.Do(ctx, &sums.events, "events"))
	return sums
}

// workerTexts returns the parts of a document in canonical form: as they are compared with
// the running state, and as the worker gets them.
func workerTexts(t *testing.T, document []byte) map[string]string {
	t.Helper()
	config := decoded[wire.NodeConfig](t, document)
	state, err := parse.Service(config.Services.Xray, func(key string) bool {
		_, known := config.ClientMap[key]
		return known
	})
	must(t, err)
	texts := map[string]string{
		"routing": string(state.Routing), "dns": string(state.DNS), "policy": string(state.Policy),
		"observatory": string(state.Base.Observatory), "burstObservatory": string(state.Base.BurstObservatory),
	}
	for tag, in := range state.Inbounds {
		texts["inbound "+tag] = string(in.Config)
		for _, c := range in.Clients {
			texts["client "+c.Key+" of "+tag] = string(c.Account)
		}
	}
	for _, o := range state.Outbounds {
		texts["outbound "+o.Tag] = string(o.Config)
	}
	return texts
}

// newScriptedFront returns a scripted Core and its front. Core has accepted posts before.
func newScriptedFront(t *testing.T, posts []upgradePost) (*scriptedCore, *upgradeFront) {
	t.Helper()
	scripted := newScriptedCore(t)
	return scripted, &upgradeFront{core: http.HandlerFunc(scripted.Config.Handler.ServeHTTP), once: true, posts: posts}
}

// serveText makes a scripted Core serve a document byte for byte.
func (c *scriptedCore) serveText(revision int64, document []byte) {
	c.change(func() { c.revision, c.body, c.fetched, c.failures = revision, document, time.Time{}, nil })
}
