package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"nodeagent/coreclient/wire"
)

// upgradeFront is a reverse proxy for a Core, at the address that the node of a fixture
// calls. It records the batches that Core accepts. It can drop answers and refuse batches.
type upgradeFront struct {
	core http.Handler
	http *http.Server
	// once makes the front itself answer batches that are in posts, so that a new
	// scripted Core counts nothing twice. A node-core has the keys in core.db.
	once bool

	mu     sync.Mutex
	posts  []upgradePost            // that Core accepted, each as often as it came
	lose   bool                     // drop the answers to batches after Core has accepted them
	refuse func(p upgradePost) bool // answers 422 where it returns true; nil for never
}

// serve starts to listen. Before that and after close, the node cannot reach Core. Without
// certificates it serves plain HTTP.
func (f *upgradeFront) serve(t *testing.T, certificates ...tls.Certificate) {
	t.Helper()
	l, err := net.Listen("tcp", loopback(upgradeCorePort))
	must(t, err)
	f.http = &http.Server{Handler: f}
	if len(certificates) > 0 {
		l = tls.NewListener(l, &tls.Config{Certificates: certificates, MinVersion: tls.VersionTLS12})
	}
	server := f.http
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
}

func (f *upgradeFront) close(t *testing.T) {
	t.Helper()
	must(t, f.http.Close())
}

// frontOf returns a front of a node-core and the certificate of that Core.
func frontOf(t *testing.T, core *Core) (*upgradeFront, tls.Certificate) {
	t.Helper()
	to, err := url.Parse("https://" + core.listen)
	must(t, err)
	cert, err := tls.LoadX509KeyPair(filepath.Join(core.dir, "tls.crt"), filepath.Join(core.dir, "tls.key"))
	must(t, err)
	return &upgradeFront{core: &httputil.ReverseProxy{
		Transport: &http.Transport{TLSClientConfig: trustAll()},
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
	}}, cert
}

func (f *upgradeFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	isBatch := slices.Contains([]string{wire.PathUsage, wire.PathOutboundUsage, wire.PathSessionEvents, wire.PathError, wire.PathApplied}, r.URL.Path)
	if !isBatch {
		f.core.ServeHTTP(w, r)
		return
	}
	post, err := readPost(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil && f.refuse(post) {
		http.Error(w, "this test refuses the batch", http.StatusUnprocessableEntity)
		return
	}
	known := slices.ContainsFunc(f.posts, post.same)
	answered := httptest.NewRecorder()
	if known && f.once {
		answer(answered, wire.OK{OK: true})
	} else {
		f.core.ServeHTTP(answered, r)
	}
	if answered.Code == http.StatusOK {
		f.posts = append(f.posts, post)
	}
	if f.lose {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), answered.Header())
	w.WriteHeader(answered.Code)
	_, _ = w.Write(answered.Body.Bytes()) // the agent would see a broken answer
}

// readPost reads a batch. The body of the request can be read again.
func readPost(r *http.Request) (upgradePost, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return upgradePost{}, err
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	if r.Header.Get("Content-Encoding") == "gzip" {
		plain, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return upgradePost{}, err
		}
		if raw, err = io.ReadAll(plain); err != nil {
			return upgradePost{}, err
		}
	}
	return upgradePost{r.URL.Path, r.Header.Get(wire.HeaderIdempotencyKey), json.RawMessage(raw)}, nil
}

// change runs do while no batch is handled.
func (f *upgradeFront) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// taken returns the batches that Core has accepted so far.
func (f *upgradeFront) taken() []upgradePost {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.posts)
}

// forwardTo forwards the connections to a port to an address. A server with a random port
// is then reached at a port that the fixtures name.
func forwardTo(t *testing.T, from, address string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", address)
			if err != nil {
				_ = from.Close()
				continue
			}
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from) // the other side sees the end
				_ = to.(*net.TCPConn).CloseWrite()
			}
			go pass(to, from)
			go func() {
				pass(from, to)
				_ = from.Close()
				_ = to.Close()
			}()
		}
	}()
}
