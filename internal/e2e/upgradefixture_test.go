package e2e

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

// The fixtures name these ports of 127.0.0.1.
const (
	upgradeCorePort    = 64_000 // Core, as the node's state names it
	upgradeSitePort    = 64_002 // the site that REALITY borrows
	upgradeInboundPort = 64_010 // the first inbound; the others follow
)

// The fixtures name the server that clients reach through the node. Its address is a public
// one, because freedom of Xray 26.7.28 lets no client of VLESS or Trojan reach a private
// address (proxy/freedom/freedom.go:155). It exists only in the network namespace of the
// test.
const (
	upgradeTargetIP = "11.22.33.44"
	upgradeTarget   = upgradeTargetIP + ":64001"
	// upgradeNetworks lets clients reach the server, whose address is one of the node's own there.
	upgradeNetworks = "\n[xray]\nclient_networks = [\"127.0.0.0/8\", \"::1\", \"" + upgradeTargetIP + "\"]\n"
)

// upgradeNode is the name of the node in a core.db.
const upgradeNode = "fra1"

const upgradeExpectFile = "expect.json"

// upgradeFixture is the content of expect.json, which describes the files beside it. See
// testdata/upgrade/README.md.
type upgradeFixture struct {
	Version string    `json:"version"` // of the programs that made the files
	MadeAt  time.Time `json:"madeAt"`  // UTC; the end of the daemon

	NodeID   string           `json:"nodeId"`
	Revision int64            `json:"revision"` // of the stored configuration
	Previous int64            `json:"previous"` // of the configuration before
	Inbounds []upgradeInbound `json:"inbounds"`
	Ways     []upgradeWay     `json:"ways"`
	Online   int              `json:"online"` // entries of the online bucket when the daemon ended

	Waiting []upgradePost  `json:"waiting"` // batches in the outbox, queue by queue
	Tried   []string       `json:"tried"`   // keys of usage batches that Core may have taken
	Aside   []upgradeAside `json:"aside"`
	// Taken are the batches that a scripted Core had accepted before the daemon ended. A
	// node-core has them in core.db.
	Taken []upgradePost `json:"taken,omitempty"`

	// The sums and events that Core has once everything has arrived.
	Usage     []upgradeUsage     `json:"usage"`
	Outbounds map[string]Traffic `json:"outbounds"` // by tag
	Events    []string           `json:"events"`    // sorted; see eventTexts

	// Commands has the output of node-core's commands before any batch arrives, without
	// times. The key is the command line.
	Commands map[string]json.RawMessage `json:"commands,omitempty"`
	// Spare is the join token of a node that has not registered yet.
	Spare string `json:"spare,omitempty"`
}

type upgradeInbound struct {
	Tag      string `json:"tag"`
	Protocol string `json:"protocol"` // as status shows it
	Clients  int    `json:"clients"`
}

// upgradeWay is how one user reaches the target through one inbound.
type upgradeWay struct {
	Name         string         `json:"name"`
	Account      upgradeAccount `json:"account"`
	Outbound     string         `json:"outbound"` // of the node; the tag
	Dial         string         `json:"dial"`     // the address that the client dials; the node leads it to the target
	OneAtATime   bool           `json:"oneAtATime,omitempty"`
	ClientConfig map[string]any `json:"clientConfig"` // the outbound of a stock client
}

// upgradeAccount is what traffic is attributed to.
type upgradeAccount struct {
	User         int64 `json:"user"`
	Subscription int64 `json:"subscription,omitempty"` // 0 for none
	Protocol     int64 `json:"protocol"`
}

type upgradeUsage struct {
	upgradeAccount
	Traffic
}

// upgradePost is a batch: its route, Idempotency-Key and body.
type upgradePost struct {
	Path string          `json:"path"`
	Key  string          `json:"key"`
	Body json.RawMessage `json:"body"`
}

// same returns whether two posts are tries of one batch.
func (p upgradePost) same(q upgradePost) bool { return p.Path == q.Path && p.Key == q.Key }

// upgradeAside is a batch that Core refused for good.
type upgradeAside struct {
	Kind   string          `json:"kind"`
	Rows   int             `json:"rows"`
	Reason string          `json:"reason"`
	Body   json.RawMessage `json:"body"`
}

// upgradeSums has the sums and events of batches.
type upgradeSums struct {
	usage     map[upgradeAccount]Traffic
	outbounds map[string]Traffic
	events    []wire.SessionEvent
	errors    []wire.ErrorRequest
}

// sumPosts adds posts up. It counts the posts of one route and key once.
func sumPosts(t *testing.T, posts []upgradePost) upgradeSums {
	t.Helper()
	sums := upgradeSums{usage: map[upgradeAccount]Traffic{}, outbounds: map[string]Traffic{}}
	seen := map[string]bool{}
	for _, post := range posts {
		if seen[post.Path+post.Key] {
			continue
		}
		seen[post.Path+post.Key] = true
		switch post.Path {
		case wire.PathUsage:
			for _, e := range decoded[wire.UsageRequest](t, post.Body).Entries {
				account := upgradeAccount{User: e.UserID, Protocol: e.NodeProtocolID}
				if e.SubscriptionID != nil {
					account.Subscription = *e.SubscriptionID
				}
				sums.usage[account] = sums.usage[account].plus(Traffic{e.BytesUp, e.BytesDown})
			}
		case wire.PathOutboundUsage:
			for _, i := range decoded[wire.OutboundUsageRequest](t, post.Body).Items {
				sums.outbounds[i.Tag] = sums.outbounds[i.Tag].plus(Traffic{i.BytesUp, i.BytesDown})
			}
		case wire.PathSessionEvents:
			sums.events = append(sums.events, decoded[wire.SessionEventsRequest](t, post.Body).Events...)
		case wire.PathError:
			sums.errors = append(sums.errors, decoded[wire.ErrorRequest](t, post.Body))
		}
	}
	return sums
}

func decoded[T any](t *testing.T, body []byte) (v T) {
	t.Helper()
	must(t, json.Unmarshal(body, &v))
	return v
}

// eventTexts returns the events that happened before a time. They are sorted, because
// old and new batches do not arrive in their order.
func eventTexts(events []wire.SessionEvent, before time.Time) []string {
	texts := []string{}
	for _, e := range events {
		if e.OccurredAt.Before(before) {
			texts = append(texts, fmt.Sprintf("user %d %s %s %s", e.UserID, e.EventType, e.Protocol, e.IPAddress))
		}
	}
	slices.Sort(texts)
	return texts
}

func usageMap(rows []upgradeUsage) map[upgradeAccount]Traffic {
	sums := map[upgradeAccount]Traffic{}
	for _, r := range rows {
		sums[r.upgradeAccount] = sums[r.upgradeAccount].plus(r.Traffic)
	}
	return sums
}

func usageRows(sums map[upgradeAccount]Traffic) []upgradeUsage {
	rows := []upgradeUsage{}
	for account, traffic := range sums {
		rows = append(rows, upgradeUsage{account, traffic})
	}
	slices.SortFunc(rows, func(a, b upgradeUsage) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Subscription, b.Subscription), cmp.Compare(a.Protocol, b.Protocol))
	})
	return rows
}

// addTo returns the sums with more of the same keys.
func addTo[K comparable](sums, more map[K]Traffic) map[K]Traffic {
	sums = maps.Clone(sums)
	for k, v := range more {
		sums[k] = sums[k].plus(v)
	}
	return sums
}

// packed maps the files that a fixture keeps as gzip files to their places below the
// folder of a test.
var packed = map[string]string{
	"node.db": "agent/state/node.db",
	"core.db": "core/core.db",
	"tls.crt": "core/tls.crt",
	"tls.key": "core/tls.key",
}

// unpack writes the files of a fixture into dir and returns its expect.json. A fixture of
// a scripted Core has no files of a Core.
func unpack(t *testing.T, from, dir string) (f upgradeFixture) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(from, upgradeExpectFile))
	must(t, err)
	must(t, json.Unmarshal(raw, &f))
	for name, to := range packed {
		file, err := os.Open(filepath.Join(from, name+".gz"))
		if os.IsNotExist(err) && name != "node.db" {
			continue
		}
		must(t, err)
		plain, err := gzip.NewReader(file)
		must(t, err)
		content, err := io.ReadAll(plain)
		must(t, err)
		must(t, file.Close())
		to = filepath.Join(dir, to)
		must(t, os.MkdirAll(filepath.Dir(to), 0o700))
		must(t, os.WriteFile(to, content, 0o600))
		must(t, os.Chtimes(to, f.MadeAt, f.MadeAt)) // the daemon reads the time of the last write from it
	}
	return f
}

// pack writes expect.json and the gzip files of the files in dir.
func pack(t *testing.T, f upgradeFixture, dir, to string) {
	t.Helper()
	must(t, os.MkdirAll(to, 0o755))
	writeIndented(t, filepath.Join(to, upgradeExpectFile), f)
	for name, from := range packed {
		content, err := os.ReadFile(filepath.Join(dir, from))
		if os.IsNotExist(err) && name != "node.db" {
			continue
		}
		must(t, err)
		var small bytes.Buffer
		w, err := gzip.NewWriterLevel(&small, gzip.BestCompression)
		must(t, err)
		_, err = w.Write(content)
		must(t, err)
		must(t, w.Close())
		must(t, os.WriteFile(filepath.Join(to, name+".gz"), small.Bytes(), 0o644))
	}
}

// stateCopy opens a copy of an agent's node.db, which the test may change.
func stateCopy(t *testing.T, agent *Agent) *store.Store {
	t.Helper()
	raw, err := os.ReadFile(agent.file("state/node.db"))
	must(t, err)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "node.db"), raw, 0o600))
	db, err := store.Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

// takeWaiting takes all batches out of an outbox and returns them.
func takeWaiting(t *testing.T, db *store.Store) (posts []upgradePost) {
	t.Helper()
	paths := map[store.Kind]string{store.KindUsage: wire.PathUsage, store.KindOutbound: wire.PathOutboundUsage, store.KindEvents: wire.PathSessionEvents}
	for _, kind := range store.Kinds {
		for {
			batch, found, err := db.Next(kind)
			must(t, err)
			if !found {
				break
			}
			posts = append(posts, upgradePost{cmp.Or(batch.Path, paths[kind]), batch.Key, batch.Body})
			must(t, db.Done(batch))
		}
	}
	return posts
}

// mergedKeys merges the usage in a copy of an outbox to days and returns the keys of the
// batches that are left.
func mergedKeys(t *testing.T, agent *Agent) (keys []string) {
	t.Helper()
	db := stateCopy(t, agent)
	_, err := db.Compact(time.Now().AddDate(0, 0, 10)) // when every batch is old enough to be merged
	must(t, err)
	for _, post := range takeWaiting(t, db) {
		if post.Path == wire.PathUsage {
			keys = append(keys, post.Key)
		}
	}
	return keys
}

// asideTexts returns one line for each batch. White space in a body makes no difference.
func asideTexts(t *testing.T, all []upgradeAside) (texts []string) {
	t.Helper()
	for _, a := range all {
		body, err := json.Marshal(decoded[any](t, a.Body))
		must(t, err)
		texts = append(texts, fmt.Sprintf("%s, %d rows, %s: %s", a.Kind, a.Rows, a.Reason, body))
	}
	return texts
}

// withoutTimes removes from the output of a command everything that depends on the time
// of the call: times, and whether a node is online.
func withoutTimes(v any) any {
	switch v := v.(type) {
	case map[string]any:
		_, isNode := v["syncStatus"]
		maps.DeleteFunc(v, func(name string, _ any) bool {
			return name == "at" || strings.HasSuffix(name, "At") || isNode && name == "status"
		})
		for name, member := range v {
			v[name] = withoutTimes(member)
		}
	case []any:
		for i, element := range v {
			v[i] = withoutTimes(element)
		}
	}
	return v
}
