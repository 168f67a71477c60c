package nodeapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
)

// herdFolder is the environment variable that makes this test program a Core over the database in a
// folder, so that its processor time and memory are Core's alone.
const herdFolder = "HERD_FOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(herdFolder); dir != "" {
		if err := serveHerd(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveHerd serves the node routes until a signal comes, and POST /add?n=N, which adds N
// subscriptions to the first user in one transaction.
func serveHerd(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	store, err := corestore.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	wake := hub.New()
	go store.Enforce(ctx, wake.Changed, func(err error) { fmt.Fprintln(os.Stderr, err) })
	mux := http.NewServeMux()
	mux.Handle("/", New(ctx, store, wake, slog.New(slog.DiscardHandler)).Handler())
	var added atomic.Int64
	mux.HandleFunc("POST /add", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		add := []corestore.NewUser{{User: corestore.User{Name: fmt.Sprintf("added %d", added.Add(1))}, Subscriptions: make([]corestore.Subscription, n)}}
		nodes, err := store.BulkUsers(r.Context(), add, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		wake.Changed(nodes...)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go server.Serve(listener) //nolint:errcheck // it ends with the process
	<-ctx.Done()
	return server.Close()
}

// herd is a Core of its own process with nodes that hold heartbeats.
type herd struct {
	t    testing.TB
	dir  string
	url  string
	core *exec.Cmd
	http *http.Client
	wire atomic.Int64 // bytes that nodes sent and got
	// reading has a slot for each node that may read a document at a time.
	reading chan struct{}
	nodes   []*herdNode
	// subs has the user and the subscription of each, and protocols the inbound of each node.
	subs      [][2]int64
	protocols []int64
}

// herdNode is one node: it fetches, applies and reports, and does nothing else.
type herdNode struct {
	*herd
	key   string
	boot  string
	check bool // it keeps its document, and checks each delta

	etag     string
	held     *delta.Document
	clients  int64
	revision int64
	applied  chan applied // each document that was applied and reported
	deltas   atomic.Int64
	wholes   atomic.Int64
}

// applied is a document that a node runs.
type applied struct {
	at                time.Time
	clients, revision int64
}

// newHerd makes a database with nodes of one inbound each and with subscriptions. One of checked nodes
// in a row checks what it gets; none does where that is 0.
func newHerd(t testing.TB, nodes, subscriptions, checked int) *herd {
	t.Helper()
	return newHerdOf(t, nodes, subscriptions, checked, corestore.Subscription{})
}

// newHerdOf is newHerd with subscriptions like the given one.
func newHerdOf(t testing.TB, nodes, subscriptions, checked int, like corestore.Subscription) *herd {
	t.Helper()
	h := &herd{t: t, dir: t.TempDir(), reading: make(chan struct{}, 16)}
	store, err := corestore.Open(t.Context(), h.dir)
	h.must(err)
	for left := subscriptions; left > 0; left -= corestore.MaxBulk {
		var add []corestore.NewUser
		for range min(left, corestore.MaxBulk) {
			add = append(add, corestore.NewUser{User: corestore.User{Name: fmt.Sprintf("user-%d-%d", left, len(add))}, Subscriptions: []corestore.Subscription{like}})
		}
		_, err := store.BulkUsers(t.Context(), add, nil)
		h.must(err)
		for _, user := range add {
			h.subs = append(h.subs, [2]int64{user.ID, user.Subscriptions[0].ID})
		}
	}
	for i := range nodes {
		node, code, err := store.AddNode(t.Context(), fmt.Sprintf("node-%d", i), "", time.Hour)
		h.must(err)
		protocol, err := store.AddProtocol(t.Context(), corestore.Protocol{NodeID: node.ID, Tag: "in", Protocol: "vless", Port: 443, Config: []byte(`{"protocol":"vless","port":443,"settings":{"decryption":"none"},"streamSettings":{"network":"tcp","security":"tls"}}`)})
		h.must(err)
		h.protocols = append(h.protocols, protocol.ID)
		_, key, err := store.Register(t.Context(), wire.RegisterRequest{Code: code, Name: "n", Host: "h", IP: "192.0.2.1"}, "")
		h.must(err)
		h.nodes = append(h.nodes, &herdNode{herd: h, key: key, boot: fmt.Sprintf("boot-%d", i), check: checked > 0 && i%checked == 0, applied: make(chan applied, 16)})
	}
	h.must(store.Close())
	dialer := net.Dialer{}
	h.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return counted{conn, &h.wire}, nil
		},
		MaxIdleConnsPerHost: nodes, DisableCompression: true,
	}}
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

// counted counts the bytes of a connection.
type counted struct {
	net.Conn
	bytes *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// start starts Core.
func (h *herd) start() {
	h.t.Helper()
	h.core = exec.Command(os.Args[0], "-test.run=^$")
	h.core.Env = append(os.Environ(), herdFolder+"="+h.dir)
	h.core.Stderr = os.Stderr
	out, err := h.core.StdoutPipe()
	h.must(err)
	h.must(h.core.Start())
	address, err := bufio.NewReader(out).ReadString('\n')
	h.must(err)
	h.url = "http://" + strings.TrimSpace(address)
}

func (h *herd) stop() {
	_ = h.core.Process.Signal(unix.SIGTERM)
	_ = h.core.Wait() // it was ended
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

// peak is the most memory that Core had, in bytes.
func (h *herd) peak() int64 {
	status, err := h.process().NewStatus()
	h.must(err)
	return int64(status.VmHWM)
}

// add adds subscriptions.
func (h *herd) add(n int) {
	h.t.Helper()
	resp, err := h.http.Post(fmt.Sprintf("%s/add?n=%d", h.url, n), "", nil)
	h.must(err)
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		h.t.Fatalf("add %d subscriptions: %s", n, body)
	}
}

// run lets all nodes fetch and hold heartbeats until stop is called. A failure of a node fails the test.
func (h *herd) run() (stop func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	var all sync.WaitGroup
	for _, n := range h.nodes {
		all.Go(func() {
			if err := n.run(ctx); err != nil && ctx.Err() == nil {
				h.t.Error(err)
				close(n.applied)
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

// wait waits until every node runs a configuration of so many clients or more.
func (h *herd) wait(clients int64) {
	h.t.Helper()
	limit := time.After(3 * time.Minute)
	for _, n := range h.nodes {
		for got := int64(-1); got < clients; {
			select {
			case more, ok := <-n.applied:
				if !ok {
					h.t.FailNow()
				}
				got = more.clients
			case <-limit:
				h.t.Fatalf("a node has %d clients, want %d", got, clients)
			}
		}
	}
}

func (n *herdNode) run(ctx context.Context) error {
	clients, err := n.fetch(ctx)
	if err != nil {
		return err
	}
	for {
		if err := n.report(ctx, clients); err != nil {
			return err
		}
		for more := false; !more; {
			var answer wire.HeartbeatResponse
			body := fmt.Sprintf(`{"ip":"192.0.2.1","revision":%d}`, n.revision)
			header := map[string]string{"Prefer": "wait=25", "X-Node-Config": n.etag, "A-IM": "node-config-delta"}
			raw, _, err := n.send(ctx, http.MethodPost, wire.PathHeartbeat, header, body)
			if err == nil {
				err = json.Unmarshal(raw, &answer)
			}
			switch {
			case err != nil:
				return err
			case answer.Delta != nil:
				more = true
				if clients, err = n.take(answer.Delta); err != nil {
					return err
				}
			case answer.NeedSync:
				more = true
				if clients, err = n.fetch(ctx); err != nil {
					return err
				}
			}
		}
	}
}

func (n *herdNode) report(ctx context.Context, clients int64) error {
	_, _, err := n.send(ctx, http.MethodPost, wire.PathApplied, map[string]string{"Idempotency-Key": fmt.Sprint(n.revision)}, fmt.Sprintf(`{"revision":%d}`, n.revision))
	if err == nil {
		n.applied <- applied{time.Now(), clients, n.revision}
	}
	return err
}

func (n *herdNode) fetch(ctx context.Context) (clients int64, err error) {
	// A document is tens of megabytes here: the nodes of one machine read them one after the other.
	n.reading <- struct{}{}
	defer func() { <-n.reading }()
	header := map[string]string{"Accept-Encoding": "zstd, gzip", "A-IM": "node-config-delta"}
	if n.etag != "" {
		header["If-None-Match"] = n.etag
	}
	raw, got, err := n.send(ctx, http.MethodGet, wire.PathConfig, header, "")
	if err != nil {
		return 0, err
	}
	if got.status == http.StatusNotModified {
		return n.clientsHeld(), nil
	}
	if got.status == http.StatusIMUsed {
		return n.take(raw)
	}
	n.etag = got.etag
	n.wholes.Add(1)
	if n.check {
		if n.held, err = delta.Read(raw); err != nil {
			return 0, err
		}
		n.revision = n.held.Revision
		return n.clientsHeld(), nil
	}
	head, _, _ := strings.Cut(string(raw[:64]), ",") // {"revision":N
	n.revision, err = strconv.ParseInt(head[strings.LastIndexByte(head, ':')+1:], 10, 64)
	n.clients = int64(bytes.Count(raw, []byte(`"userId"`)))
	return n.clients, err
}

func (n *herdNode) clientsHeld() int64 {
	if n.check && n.held != nil {
		return int64(len(n.held.ClientMap))
	}
	return n.clients
}

// take takes a delta.
func (n *herdNode) take(raw []byte) (clients int64, err error) {
	d, err := delta.Decode(raw)
	if err != nil {
		return 0, err
	}
	if d.Base != n.etag {
		return 0, fmt.Errorf("the delta is from %s, want %s", d.Base, n.etag)
	}
	if n.check {
		if n.held, err = delta.Apply(n.held, d); err != nil {
			return 0, err
		}
	}
	n.clients += int64(len(d.ClientMap.Added) - len(d.ClientMap.Removed))
	n.etag, n.revision = d.ETag, d.Revision
	n.deltas.Add(1)
	return n.clientsHeld(), nil
}

func (n *herdNode) send(ctx context.Context, method, path string, header map[string]string, sent string) (raw []byte, got received, err error) {
	r, err := http.NewRequestWithContext(ctx, method, n.url+path, strings.NewReader(sent))
	if err != nil {
		return nil, got, err
	}
	r.Header.Set("x-node-auth-key", n.key)
	r.Header.Set("X-Node-Boot", n.boot)
	r.Header.Set("User-Agent", "node-agent/1.0.0 xray/26.7.28")
	for name, value := range header {
		r.Header.Set(name, value)
	}
	resp, err := n.http.Do(r)
	if err != nil {
		return nil, got, err
	}
	defer resp.Body.Close()
	got = received{resp.StatusCode, resp.Header.Get("ETag")}
	body := io.Reader(resp.Body)
	if resp.Header.Get("Content-Encoding") == "zstd" {
		unzstd, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, got, err
		}
		defer unzstd.Close()
		body = unzstd
	}
	if raw, err = io.ReadAll(body); err != nil {
		return nil, got, err
	}
	if resp.StatusCode >= 400 {
		return nil, got, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
	}
	return raw, got, nil
}

// received is what a node reads of an answer beside its body.
type received struct {
	status int
	etag   string
}
