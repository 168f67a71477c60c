package e2e

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// linkReader is a client that uses what Core's subscription links say.
type linkReader struct {
	name    string
	form    string // behind the token
	program otherProgram
	// read returns the outbounds of the answer, by their names, and config what runs them.
	read   func(body []byte) (map[string]map[string]any, error)
	config func([]entrance) map[string]any
}

var linkReaders = []linkReader{
	{"Xray", "xray", otherProgram{name: "Xray", args: func(_, file string) []string { return []string{"run", "-c", file} }}, readXray, xrayConfig},
	{"mihomo", "mihomo", otherPrograms[1], readMihomo, mihomoConfig},
	{"sing-box", "sing-box", otherPrograms[0], readSingBox, singBoxConfig},
}

func readXray(body []byte) (map[string]map[string]any, error) {
	var config struct{ Outbounds []map[string]any }
	err := json.Unmarshal(body, &config)
	return byName(config.Outbounds, "tag"), err
}

func readMihomo(body []byte) (map[string]map[string]any, error) {
	var config struct{ Proxies []map[string]any }
	err := yaml.Unmarshal(body, &config)
	return byName(config.Proxies, "name"), err
}

func readSingBox(body []byte) (map[string]map[string]any, error) {
	var config struct{ Outbounds []map[string]any }
	err := json.Unmarshal(body, &config)
	return byName(config.Outbounds, "tag"), err
}

func byName(list []map[string]any, member string) map[string]map[string]any {
	named := map[string]map[string]any{}
	for _, outbound := range list {
		if name, is := outbound[member].(string); is {
			named[name] = outbound
		}
	}
	return named
}

func xrayConfig(entrances []entrance) map[string]any {
	var inbounds, outbounds, rules []any
	for _, e := range entrances {
		inbounds = append(inbounds, map[string]any{"tag": e.name, "listen": "127.0.0.1", "port": e.socks, "protocol": "socks"})
		outbounds = append(outbounds, e.outbound)
		rules = append(rules, map[string]any{"inboundTag": []string{e.name}, "outboundTag": e.name})
	}
	return map[string]any{"log": map[string]any{"loglevel": "warning"}, "inbounds": inbounds, "outbounds": outbounds, "routing": map[string]any{"rules": rules}}
}

// fetch gets a subscription's own link in a form.
func fetch(t *testing.T, link, form string) []byte {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	response, err := client.Get(link + "/" + form)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s", form, response.Status, body)
	}
	return body
}

// An application that fetches a subscription's own link connects, in every form and through every
// inbound that the form can express: each row of the table of docs/links.md, which the test prints as it
// found it, and more of Xray's modes. The bytes are counted exactly.
func TestSubscriptionLinks(t *testing.T) {
	site, _ := (&world{t: t}).httpsSite()
	_, _, reality := securities(t, "", "", "", site)
	table := linkTable(t, reality.node)
	var rows []protocolRow
	for _, r := range table {
		rows = append(rows, r.protocolRow)
	}
	w := newProtocolWorld(t, append(rows, furtherRows()...))
	t.Setenv("SSL_CERT_FILE", filepath.Join(w.dir, "site.crt")) // the authority that the clients trust
	port, err := FreePort()
	must(t, err)
	vision, err := w.core.AddInbound(w.ctx, "node", map[string]any{"listen": "127.0.0.1", "port": port, "protocol": "vless", "settings": decryption, "streamSettings": reality.node}, "--flow", "xtls-rprx-vision")
	must(t, err)
	w.rows = append(w.rows, rowInbound{protocolRow{name: "vless over REALITY with Vision"}, vision})
	alice := w.subscriber("alice")
	w.start()
	var shown struct {
		URL   string
		Links []string
	}
	must(t, w.core.Do(w.ctx, &shown, "subscription", "show", alice.UUID))
	want, served := map[Account]Traffic{}, map[string]map[int64]Traffic{}
	for _, reader := range linkReaders {
		t.Run(reader.name, func(t *testing.T) {
			path := w.progs.Xray
			if reader.name != "Xray" {
				path = reader.program.built.Path(t)
			}
			outbounds, err := reader.read(fetch(t, shown.URL, reader.form))
			must(t, err)
			served[reader.name] = w.connectBy(t, reader, path, outbounds)
			for at, moved := range served[reader.name] {
				want[Account{alice.UserID, at}] = want[Account{alice.UserID, at}].plus(moved)
			}
			if reader.name == "Xray" && len(served[reader.name]) != len(w.rows) {
				t.Errorf("%d of %d inbounds have an outbound of Xray", len(served[reader.name]), len(w.rows))
			}
		})
	}
	t.Run("mihomo reads links", func(t *testing.T) {
		for at, moved := range w.connectByLinks(t, otherPrograms[1].built.Path(t), fetch(t, shown.URL, "links")) {
			want[Account{alice.UserID, at}] = want[Account{alice.UserID, at}].plus(moved)
		}
	})
	if t.Failed() {
		return
	}
	w.wantTable(table, served, shown.Links)
	w.stopAgent()
	w.wantUsage(want)
}

// wantTable prints the table of what clients were served, and compares it with that of docs/links.md. A
// client that was not run has the words of the document.
func (w *protocolWorld) wantTable(table []linkRow, served map[string]map[int64]Traffic, links []string) {
	w.t.Helper()
	var printed strings.Builder
	for i, r := range table {
		at := w.rows[i].at
		line := strings.Join(strings.Split(r.line, " | ")[:3], " | ")
		for _, column := range tableColumns {
			has := slices.ContainsFunc(links, func(link string) bool { return namesTag(link, at.Tag) })
			if column != "link" {
				if _, run := served[column]; !run {
					has = r.has[column]
				} else {
					_, has = served[column][at.ID]
				}
			}
			word := "–"
			if has {
				word = "yes"
			}
			line += " | " + word
		}
		if line += " |"; line != r.line {
			w.t.Errorf("docs/links.md says\n%s and clients say\n%s", r.line, line)
		}
		printed.WriteString(line + "\n")
	}
	w.t.Log("\n" + printed.String())
}

// namesTag reports whether a link is that of the inbound with this tag.
func namesTag(link, tag string) bool {
	if text, is := strings.CutPrefix(link, "vmess://"); is {
		raw, err := base64.StdEncoding.DecodeString(text)
		return err == nil && strings.Contains(string(raw), `"ps":"node-`+tag+`"`)
	}
	return strings.HasSuffix(link, "#node-"+tag)
}

// connectBy moves bytes through every inbound that has an outbound, by a program that runs all of
// them. It returns the bytes by inbound.
func (w *protocolWorld) connectBy(t *testing.T, reader linkReader, path string, outbounds map[string]map[string]any) map[int64]Traffic {
	t.Helper()
	var entrances []entrance
	var rows []rowInbound
	for _, r := range w.rows {
		outbound, has := outbounds["node-"+r.at.Tag]
		if !has {
			continue
		}
		outbound = maps.Clone(outbound)
		delete(outbound, "name")
		socks, err := FreePort()
		must(t, err)
		outbound["tag"] = r.at.Tag
		if reader.name == "mihomo" {
			delete(outbound, "tag")
		}
		entrances, rows = append(entrances, entrance{name: r.at.Tag, outbound: outbound, socks: socks, echo: &net.UDPAddr{}}), append(rows, r)
	}
	t.Logf("%s connects to %d inbounds of %d", reader.name, len(rows), len(w.rows))
	program := reader.program
	program.config = reader.config
	program.start(w.world, path, "links-"+reader.name, entrances)
	return w.moveThrough(t, rows, func(i int) int { return entrances[i].socks })
}

// moveThrough moves bytes over one connection to each row, through the client's SOCKS port.
func (w *protocolWorld) moveThrough(t *testing.T, rows []rowInbound, socks func(i int) int) map[int64]Traffic {
	t.Helper()
	visitors := make([]visitor, len(rows))
	for i, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			visitors[i] = visitor{row: r, socks: socks(i), target: w.newContentTarget()}
			visitors[i].uses(t)
		})
	}
	moved := map[int64]Traffic{}
	if t.Failed() {
		return moved
	}
	for _, v := range visitors {
		must(t, v.conn.Close())
	}
	for _, v := range visitors {
		must(t, Eventually(w.ctx, v.target.allEnded))
		moved[v.row.at.ID] = v.target.Traffic()
	}
	return moved
}

// connectByLinks gives mihomo the list of links, as its users do, and moves bytes through every
// link that mihomo has a proxy for. mihomo refuses a whole list that has a link with an HTTP header over raw TCP
// (common/convert/v.go makes it an option of another type), so that the list has only the links that are used.
func (w *protocolWorld) connectByLinks(t *testing.T, path string, list []byte) map[int64]Traffic {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(string(list))
	must(t, err)
	var used []byte
	// mihomo does not have some of these, and its reader of links loses others: gRPC's multi mode, the name of
	// the server in a link of SOCKS or HTTP, VLESS encryption, and masks. Of HTTPUpgrade its reader
	// makes a network that mihomo itself does not know (common/convert/v.go).
	lacks := []string{"XHTTP", "HTTPUpgrade", "mKCP", "multi", "encryption", "Minecraft", "masks", "http", "HTTP header"}
	var rows []rowInbound
	var ports []int
	var groups, listeners []any
	for _, r := range w.rows {
		overTLS := strings.HasSuffix(r.name, "and TLS")
		switch {
		case slices.ContainsFunc(lacks, func(word string) bool { return strings.Contains(r.name, word) }),
			r.protocol == "vmess" && strings.HasSuffix(r.name, "REALITY"),
			r.protocol == "trojan" && !overTLS, // also without a TLS that the link does not say
			r.protocol == "socks" && overTLS:   // there is no link
			continue
		}
		for line := range strings.Lines(string(raw)) {
			if namesTag(strings.TrimSpace(line), r.at.Tag) {
				used = append(used, line...)
			}
		}
		port, err := FreePort()
		must(t, err)
		rows, ports = append(rows, r), append(ports, port)
		groups = append(groups, map[string]any{"name": r.at.Tag, "type": "select", "use": []string{"links"}, "filter": fmt.Sprintf("^node-%s$", r.at.Tag)})
		listeners = append(listeners, map[string]any{"name": r.at.Tag, "type": "socks", "listen": "127.0.0.1", "port": port, "proxy": r.at.Tag})
	}
	file := filepath.Join(w.dir, "links.txt")
	must(t, os.WriteFile(file, base64.StdEncoding.AppendEncode(nil, used), 0o600))
	program := otherPrograms[1]
	program.config = func([]entrance) map[string]any {
		return map[string]any{
			"mode": "rule", "log-level": "warning", "ipv6": false, "listeners": listeners, "proxy-groups": groups, "rules": []string{"MATCH,REJECT"},
			"proxy-providers": map[string]any{"links": map[string]any{"type": "file", "path": file, "override": map[string]any{"skip-cert-verify": true}}},
		}
	}
	entrances := make([]entrance, len(ports))
	for i, port := range ports {
		entrances[i] = entrance{socks: port}
	}
	t.Setenv("SAFE_PATHS", w.dir) // mihomo reads providers only from folders that it is told
	program.start(w.world, path, "links-of-mihomo", entrances)
	return w.moveThrough(t, rows, func(i int) int { return ports[i] })
}
