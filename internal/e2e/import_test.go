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

	"nodeagent/internal/namespace"
	"nodeagent/internal/otherclients"
)

// panelFiles has what other panels made.
const panelFiles = "../../cmd/node-core/internal/importer/testdata"

// borrowed serves the site that the panels' REALITY inbounds borrow.
func borrowed(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:9443")
	if err != nil {
		t.Fatalf("serve the site that the panels' inbounds borrow: %v", err) // the namespace has no other listener
	}
	site := httptest.NewUnstartedServer(http.NotFoundHandler())
	must(t, site.Listener.Close())
	site.Listener, site.TLS = l, &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}
	site.Config.ErrorLog = log.New(io.Discard, "", 0)
	site.StartTLS()
	t.Cleanup(site.Close)
}

// importedWorld is a node with what a panel had.
func importedWorld(t *testing.T, args ...string) *world {
	t.Helper()
	w := newWorld(t)
	for i, arg := range args {
		if filepath.Ext(arg) != "" {
			args[i] = filepath.Join(panelFiles, arg)
		}
	}
	var done struct {
		Added struct{ Protocols, Users int }
	}
	must(t, w.core.Do(w.ctx, &done, append(append([]string{"import"}, args...), "--node", "node", "--yes")...))
	if done.Added.Protocols == 0 || done.Added.Users == 0 {
		t.Fatalf("the import has added %+v", done.Added)
	}
	return w
}

// counted are the counters of the users' subscriptions.
func (w *world) counted() map[string]Traffic {
	w.t.Helper()
	var users []struct {
		ID   int64
		Name string
	}
	var subs []Subscription
	must(w.t, w.core.Do(w.ctx, &users, "user", "list"))
	must(w.t, w.core.Do(w.ctx, &subs, "subscription", "list"))
	all := map[string]Traffic{}
	for _, u := range users {
		for _, s := range subs {
			if s.UserID == u.ID {
				all[u.Name] = Traffic{s.BytesUp, s.BytesDown}
			}
		}
	}
	return all
}

// throughOldLinks moves bytes through each old link of the users, and checks that the counters went on
// from where the panel's were.
//
// others move bytes by other clients; they return the user and how many.
func (w *world) throughOldLinks(links map[string][]string, users map[string]bool, certificate string, others ...func(*Target) (string, Traffic)) {
	w.t.Helper()
	target := w.target()
	w.redirectTo(target) // for WireGuard, whose tunnel lets no connection go to loopback
	w.start()
	before, moved := w.counted(), map[string]Traffic{}
	for user, serves := range users {
		for _, link := range links[user] {
			start := target.Traffic()
			// A stock client of Trojan takes no first payload of more than 8 KiB with its header.
			client := w.client(oldOutbound(w.t, link, oldPort(w.t, user, link), certificate))
			err := client.Exchange("192.0.2.1:80", 1_007, 20_011)
			must(w.t, Eventually(w.ctx, target.allEnded))
			client.Kill() // it would take back the WireGuard session of the next client with its key
			if (err == nil) != serves {
				w.t.Errorf("%s with %s: %v, and it should be served: %t", user, link, err, serves)
			}
			end := target.Traffic()
			moved[user] = moved[user].plus(Traffic{end.Up - start.Up, end.Down - start.Down})
		}
	}
	for _, other := range others {
		user, more := other(target)
		moved[user] = moved[user].plus(more)
	}
	w.stopAgent()
	for user, have := range w.counted() {
		if want := before[user].plus(moved[user]); have != want {
			w.t.Errorf("%s had counted %s, moved %s and has counted %s", user, before[user], moved[user], have)
		}
	}
}

// linkOf returns the one link that Core itself gives a user, and the subscription's own.
func (w *world) linkOf(user string) (link, own string) {
	w.t.Helper()
	var found []Subscription
	must(w.t, w.core.Do(w.ctx, &found, "subscription", "list", "--search", user))
	var shown struct {
		URL   string
		Links []string
	}
	must(w.t, w.core.Do(w.ctx, &shown, "subscription", "show", found[0].UUID))
	if len(shown.Links) != 1 {
		w.t.Fatalf("%s has the links %q", user, shown.Links)
	}
	return shown.Links[0], shown.URL
}

// throughMihomo moves bytes through each proxy of mihomo's form of a user's subscription. It returns what
// the target counted.
func (w *world) throughMihomo(path, user string, target *Target) Traffic {
	w.t.Helper()
	_, own := w.linkOf(user)
	outbounds, err := readMihomo(fetch(w.t, own, "mihomo"))
	must(w.t, err)
	var entrances []entrance
	for name, outbound := range outbounds {
		outbound["server"] = "127.0.0.1"
		delete(outbound, "name")
		socks, err := FreePort()
		must(w.t, err)
		entrances = append(entrances, entrance{name: name, outbound: outbound, socks: socks})
	}
	if len(entrances) != 1 {
		w.t.Fatalf("%s has the proxies %v", user, outbounds)
	}
	otherPrograms[1].start(w, path, "mihomo-of-"+user, entrances)
	start := target.Traffic()
	v := visitor{socks: entrances[0].socks, to: somewhere, target: target}
	// mihomo listens before it forwards: the first connection is tried again.
	must(w.t, Eventually(w.ctx, func() error {
		conn, err := v.dial(w.ctx, Patience/3)
		if err != nil {
			return err
		}
		return errors.Join(Exchange(conn, 300_007, 500_009), conn.Close())
	}))
	must(w.t, Eventually(w.ctx, target.allEnded))
	end := target.Traffic()
	return Traffic{end.Up - start.Up, end.Down - start.Down}
}

func oldLinks(t *testing.T, panel string) (links map[string][]string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(panelFiles, panel, "links.json"))
	must(t, err)
	must(t, json.Unmarshal(raw, &links))
	return links
}

// After an import, clients connect with the links that the panel gave them, on the same ports, and
// their counters go on from the panel's. A client that the panel had cut off stays out.
func TestImport(t *testing.T) {
	namespace.Parallel(t)
	var mihomo string
	t.Run("a mihomo", func(t *testing.T) { mihomo = otherclients.Mihomo.Path(t) })
	// The panels' inbounds have ports of their own. The namespace has no module proxy.
	if !inside(t, ":", otherclients.Mihomo.Variable+"="+mihomo) {
		return
	}
	borrowed(t)
	t.Run("3x-ui", func(t *testing.T) {
		w := importedWorld(t, "3x-ui", "3x-ui/x-ui.db")
		cert := newCert(t)
		certFile, keyFile := w.writeCert(cert)
		for _, tag := range []string{"in-30083-tcp", "in-30089-udp"} { // the panel's files are not here
			var edited any
			must(t, w.core.Do(w.ctx, &edited, "protocol", "edit", "node/"+tag, "--cert", certFile, "--key", keyFile))
		}
		if c := w.counted(); c["user1"] != (Traffic{123456789, 987654321}) {
			t.Fatalf("user1 has counted %s", c["user1"])
		}
		users := map[string]bool{"user4": false, "user10": false} // disabled, and on a disabled inbound
		for _, n := range []int{1, 2, 3, 5, 6, 7, 8, 9, 11, 12} {
			users[fmt.Sprintf("user%d", n)] = true
		}
		links := oldLinks(t, "3x-ui")
		const account = "su@in-30087-tcpudp" // of SOCKS, who is no client of the panel
		links[account], users[account] = []string{"socks://su:sp@127.0.0.1:30087"}, true
		own, _ := w.linkOf("user11") // Core's, of WireGuard
		links["user11"] = append(links["user11"], own)
		var others []func(*Target) (string, Traffic)
		if mihomo != "" {
			others = append(others, func(target *Target) (string, Traffic) { return "user11", w.throughMihomo(mihomo, "user11", target) })
		}
		w.throughOldLinks(links, users, pin(cert), others...)
	})
	t.Run("Marzban", func(t *testing.T) {
		w := importedWorld(t, "marzban", "marzban/db.sqlite3", "--xray-config", "marzban/xray_config.json")
		if c := w.counted(); c["alice"] != (Traffic{0, 123456789012}) {
			t.Fatalf("alice has counted %s", c["alice"])
		}
		users := map[string]bool{"alice": false, "bob": true, "carol_hold": true, "dave": false, "erin": false, "frank": false}
		w.throughOldLinks(oldLinks(t, "marzban"), users, "")
	})
	t.Run("remnawave", func(t *testing.T) {
		w := importedWorld(t, "remnawave", "remnawave/users.json", "remnawave/config-profiles.json", "remnawave/internal-squads.json", "remnawave/hosts.json")
		if c := w.counted(); c["grace"] != (Traffic{0, 2_000_000_000}) {
			t.Fatalf("grace has counted %s", c["grace"])
		}
		w.throughOldLinks(oldLinks(t, "remnawave"), map[string]bool{"grace": true, "heidi": true, "ivan": false}, "")
	})
}
