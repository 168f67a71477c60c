package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
	"nodeagent/internal/postgrestest"
	"nodeagent/internal/secret"
	"nodeagent/internal/wait"
)

// herd is a Core in a process of its own, as the command serve runs it, with nodes that are connected
// as node-agents are: with the same client, over TLS, each with a connection of its own.
type herd struct {
	t        testing.TB
	dir      string
	database string // URL of a PostgreSQL; empty for SQLite
	core     *exec.Cmd
	token    wire.JoinToken // has Core's address and pin
	keys     []string       // of the nodes
	user     int64
	holding  atomic.Int64    // nodes that have their document, and send heartbeats
	beats    atomic.Int64    // heartbeats that Core has answered
	news     chan struct{}   // has a value when holding, beats, changed or reported has grown
	ended    <-chan struct{} // closed when Core's log has ended
	reported atomic.Int64    // reports that a node runs one
	changed  atomic.Int64    // documents and deltas that nodes got
	failed   atomic.Int64    // requests
}

// newHerd makes a database with nodes of one inbound each and with subscriptions, and starts Core.
func newHerd(t testing.TB, nodes, subscriptions int, database string) *herd {
	t.Helper()
	h := &herd{t: t, dir: t.TempDir(), database: database, news: make(chan struct{}, 1)}
	var store *corestore.Store
	// Tens of thousands of small transactions wait for no disk there.
	quick, err := os.MkdirTemp("/dev/shm", "herd")
	h.must(err)
	defer os.RemoveAll(quick)
	if database == "" {
		store, err = corestore.Open(t.Context(), quick)
	} else {
		store, err = corestore.OpenPostgres(t.Context(), corestore.Postgres{URL: database})
	}
	h.must(err)
	var add []corestore.NewUser
	for i := range subscriptions {
		add = append(add, corestore.NewUser{User: corestore.User{Name: fmt.Sprintf("user-%d", i)}, Subscriptions: make([]corestore.Subscription, 1)})
	}
	_, err = store.BulkUsers(t.Context(), add, nil)
	h.must(err)
	h.user = add[0].ID
	for i := range nodes {
		node, code, err := store.AddNode(t.Context(), fmt.Sprintf("node-%d", i), "", time.Hour)
		h.must(err)
		_, err = store.AddProtocol(t.Context(), corestore.Protocol{NodeID: node.ID, Tag: "in", Protocol: "vless", Port: 443, Config: []byte(`{"protocol":"vless","port":443,"settings":{"decryption":"none"},"streamSettings":{"network":"tcp","security":"tls"}}`)})
		h.must(err)
		_, key, err := store.Register(t.Context(), wire.RegisterRequest{Code: code, Name: "n", Host: "h", IP: "192.0.2.1"}, "")
		h.must(err)
		h.keys = append(h.keys, key)
	}
	h.must(store.Close())
	if database == "" {
		h.must(os.CopyFS(h.dir, os.DirFS(quick)))
	}
	h.start()
	t.Cleanup(h.stop)
	return h
}

func (h *herd) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

var servesAt = regexp.MustCompile(`msg="node-core serves".* listen=(\S+)`)

// start starts Core and asks it for a join token, which says where it is and whose certificate it has.
func (h *herd) start() {
	h.t.Helper()
	args := []string{"serve", "--data-dir", h.dir, "--listen", "127.0.0.1:0"}
	if h.database != "" {
		args = append(args, "--database", h.database)
	}
	h.core = exec.Command("node-core", args...)
	out, err := h.core.StderrPipe()
	h.must(err)
	h.must(h.core.Start())
	log := bufio.NewReader(out)
	for {
		line, err := log.ReadString('\n')
		if err != nil {
			h.t.Fatalf("Core did not start: %v: %s", err, line)
		}
		if servesAt.MatchString(line) {
			break
		}
	}
	ended := make(chan struct{})
	h.ended = ended
	go func() {
		_, _ = io.Copy(io.Discard, log)
		close(ended)
	}()
	client := adminapi.Dial(h.dir)
	defer client.Close()
	added, err := client.AddNode(h.t.Context(), coreapi.NewNode{Name: "away-" + rand.Text()})
	h.must(err)
	h.token, err = wire.ParseJoinToken(added.JoinToken)
	h.must(err)
}

func (h *herd) stop() {
	_ = h.core.Process.Signal(unix.SIGTERM)
	_ = h.core.Wait() // it was ended
}

// run connects all nodes, some at a time, and returns when the heartbeats of all are held. They are
// held until stop is called.
func (h *herd) run() (stop func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	var all sync.WaitGroup
	connecting := make(chan struct{}, 32)
	for i, key := range h.keys {
		client, err := coreclient.New(coreclient.Config{
			CoreURL: h.token.CoreURL, Pin: h.token.Pin, AuthKey: secret.Text(key), Boot: fmt.Sprintf("boot-%d", i), Machine: fmt.Sprintf("%064d", i),
			UserAgent: func() string { return "node-agent/1.0.0 xray/26.7.28" },
		}, slog.New(slog.DiscardHandler))
		h.must(err)
		all.Go(func() {
			for connected := false; ctx.Err() == nil; { // an agent tries again too
				if err := h.node(ctx, client, connecting, &connected); err != nil && ctx.Err() == nil {
					h.failed.Add(1)
					wait.For(ctx, time.Second+mathrand.N(time.Second))
				}
			}
		})
	}
	h.await(&h.holding, int64(len(h.keys)))
	return func() { cancel(); all.Wait() }
}

// grow adds one to holding, beats, changed or reported.
func (h *herd) grow(counter *atomic.Int64) {
	counter.Add(1)
	select {
	case h.news <- struct{}{}:
	default: // await has not seen the last one yet
	}
}

// await returns when one of these has reached n, and ends the test where Core ends. One goroutine may call it at a time.
func (h *herd) await(counter *atomic.Int64, n int64) {
	h.t.Helper()
	for counter.Load() < n {
		select {
		case <-h.news:
		case <-h.ended:
			h.t.Fatalf("Core ended while %d nodes were awaited, and %d were there", n, counter.Load())
		case <-h.t.Context().Done():
			h.t.Fatalf("the test ended while %d nodes were awaited, and %d were there", n, counter.Load())
		}
	}
}

// node is one node: it fetches, reports and sends heartbeats, as the agent does.
func (h *herd) node(ctx context.Context, client *coreclient.Client, connecting chan struct{}, connected *bool) error {
	var etag string
	var revision int64
	report := func() error {
		err := client.Post(ctx, wire.PathApplied, rand.Text(), fmt.Appendf(nil, `{"revision":%d}`, revision))
		if err == nil {
			h.grow(&h.reported)
		}
		return err
	}
	fetch := func() error {
		connecting <- struct{}{}
		defer func() { <-connecting }()
		u, err := client.Update(ctx, etag)
		if err != nil || !u.Changed {
			return err
		}
		etag = u.ETag
		if u.Delta {
			d, err := delta.Decode(u.Body)
			if err != nil {
				return err
			}
			revision = d.Revision
		} else {
			revision, err = revisionOf(u.Body)
			if err != nil {
				return err
			}
		}
		h.grow(&h.changed)
		return report()
	}
	if err := fetch(); err != nil {
		return err
	}
	if !*connected {
		*connected = true
		h.grow(&h.holding)
	}
	for {
		answer, err := client.Heartbeat(ctx, wire.HeartbeatRequest{IP: "192.0.2.1", Revision: &revision}, etag, rand.Text(), 25*time.Second)
		if err == nil {
			h.grow(&h.beats)
		}
		switch {
		case err != nil:
			return err
		case answer.Delta != nil:
			d, err := delta.Decode(answer.Delta)
			if err != nil {
				return err
			}
			etag, revision = d.ETag, d.Revision
			h.grow(&h.changed)
			if err := report(); err != nil {
				return err
			}
		case answer.NeedSync:
			if err := fetch(); err != nil {
				return err
			}
		}
	}
}

// revisionOf reads the revision at the begin of a document: {"revision":N,
func revisionOf(document []byte) (int64, error) {
	head, _, _ := strings.Cut(string(document[:min(len(document), 64)]), ",")
	return strconv.ParseInt(head[strings.LastIndexByte(head, ':')+1:], 10, 64)
}

// process is Core's process in /proc.
func (h *herd) process() procfs.Proc {
	p, err := procfs.NewProc(h.core.Process.Pid)
	h.must(err)
	return p
}

// cpu is the processor time that Core has used.
func (h *herd) cpu() time.Duration {
	stat, err := h.process().Stat()
	h.must(err)
	return time.Duration(stat.CPUTime() * float64(time.Second))
}

// written is how many bytes Core has had written to the disk.
func (h *herd) written() uint64 {
	io, err := h.process().IO()
	h.must(err)
	return io.WriteBytes
}

// herdDatabases calls f with the URL of a new PostgreSQL too; the URL is empty for SQLite.
func herdDatabases(b *testing.B, f func(b *testing.B, database string)) {
	b.Run("SQLite", func(b *testing.B) { f(b, "") })
	b.Run("PostgreSQL", func(b *testing.B) { f(b, postgrestest.Start(b, "fsync=on").Database(b)) })
}
