package nodeapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
)

// configCache has the last configuration that was built for each node, so that a node that
// asks again, or is told 304, costs one small query.
type configCache struct {
	mu   sync.Mutex // held only inside get and put
	byID map[int64]*cachedConfig
}

// cachedConfig is never changed once it is in the cache. It has the document compressed, which
// nearly every node asks for: it is packed once and not for each request.
type cachedConfig struct {
	revision int64  // that the document has
	packed   []byte // JSON, compressed with zstd
	etag     string // with its quotes
}

func (c *configCache) get(node int64) *cachedConfig {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[node]
}

func (c *configCache) put(node int64, config *cachedConfig) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID == nil {
		c.byID = map[int64]*cachedConfig{}
	}
	c.byID[node] = config
}

// config answers with the newest configuration of the node, or with 304 where the request's
// If-None-Match names it.
func (a *API) config(r *request) (any, error) {
	config, err := a.currentConfig(r.Context(), r.nodeID)
	if err != nil {
		return nil, err
	}
	header := r.w.Header()
	header.Set("ETag", config.etag)
	if slices.ContainsFunc(strings.Split(r.Header.Get("If-None-Match"), ","), func(tag string) bool { return strongETag(tag) == config.etag }) {
		r.w.WriteHeader(http.StatusNotModified)
		return nil, nil
	}
	leave, err := a.answering.enter(r.nodeID, maxAnswers)
	if err != nil {
		return nil, err
	}
	defer leave()
	header.Set("Content-Type", "application/json")
	// A node that does not read must not hold the document for ever.
	_ = http.NewResponseController(r.w).SetWriteDeadline(time.Now().Add(a.answerTime)) // not every writer of a test has one
	if acceptsZstd(r.Header.Get("Accept-Encoding")) {
		header.Set("Content-Encoding", "zstd")
		header.Add("Vary", "Accept-Encoding")
		_, _ = r.w.Write(config.packed) // fails only where the node has disconnected
		return nil, nil
	}
	return nil, unpackTo(r.w, config.packed)
}

// maxAnswers bounds how many answers with its document a node may have open at a time.
const maxAnswers = 4

// defaultAnswerTime bounds how long a node may take to read its document: a megabyte in ten minutes
// comes over any link.
const defaultAnswerTime = 10 * time.Minute

// currentConfig returns the configuration of the node's current revision, from the cache if it
// is there. Requests that come together share one build.
func (a *API) currentConfig(ctx context.Context, nodeID int64) (*cachedConfig, error) {
	revision, err := a.store.Revision(ctx, nodeID)
	if err != nil {
		return nil, err
	}
	if cached := a.cache.get(nodeID); cached != nil && cached.revision == revision {
		return cached, nil
	}
	// The build goes on where the request that began it ends: others wait for it.
	built, err, _ := a.building.Do(strconv.FormatInt(nodeID, 10), func() (any, error) {
		return a.buildConfig(context.WithoutCancel(ctx), nodeID)
	})
	if err != nil {
		return nil, err
	}
	return built.(*cachedConfig), nil
}

// buildConfig builds the node's configuration and puts it into the cache.
func (a *API) buildConfig(ctx context.Context, nodeID int64) (*cachedConfig, error) {
	a.builders <- struct{}{}
	defer func() { <-a.builders }()
	rows, err := a.store.NodeRows(ctx, nodeID)
	if err != nil {
		return nil, err
	}
	config, err := nodeconfig.Build(rows)
	if err != nil {
		return nil, fmt.Errorf("build the configuration of node %d: %w", nodeID, err)
	}
	body, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode the configuration of node %d: %w", nodeID, err)
	}
	sum := sha256.Sum256(body)
	cached := &cachedConfig{revision: rows.Node.Revision, packed: pack(body), etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
	// The note comes first: a document that a node got must be known to have been made.
	if err := a.store.NoteDocument(ctx, nodeID, cached.revision, cached.etag); err != nil {
		return nil, err
	}
	a.cache.put(nodeID, cached)
	return cached, nil
}

func (a *API) applied(r *request) (any, error) {
	var body struct {
		Revision *int64 `json:"revision"`
	}
	if err := readBody(r, &body, maxSmallBody); err != nil {
		return nil, err
	}
	var f fields
	revision := f.number("revision", body.Revision, 0, 1<<62)
	if f.err != nil {
		return nil, f.err
	}
	a.log.Info("node applied a configuration", logkey.Node, r.nodeID, logkey.Revision, revision)
	if err := a.store.Applied(r.Context(), r.nodeID, r.idempotencyKey, revision); err != nil {
		return nil, err
	}
	a.hub.Reported(r.nodeID)
	return wire.OK{OK: true}, nil
}
