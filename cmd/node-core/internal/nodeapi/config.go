package nodeapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"nodeagent/cmd/node-core/internal/nodeconfig"
)

// configCache keeps each node's configuration as it was made last.
type configCache struct {
	mu   sync.Mutex
	byID map[int64]*cachedConfig
}

type cachedConfig struct {
	revision int64
	body     []byte
	etag     string
}

func (a *API) config(r *request) (any, error) {
	config, err := a.currentConfig(r.Context(), r.nodeID)
	if err != nil {
		return nil, err
	}
	header := r.w.Header()
	header.Set("ETag", config.etag)
	header.Set("Vary", "Accept-Encoding")
	if slices.ContainsFunc(strings.Split(r.Header.Get("If-None-Match"), ","), func(tag string) bool { return strings.TrimSpace(tag) == config.etag }) {
		r.w.WriteHeader(http.StatusNotModified)
		return nil, nil
	}
	header.Set("Content-Type", "application/json")
	return nil, writePacked(r.w, r.Header.Get("Accept-Encoding"), config.body)
}

func (a *API) currentConfig(ctx context.Context, nodeID int64) (*cachedConfig, error) {
	node, protocols, outbounds, subs, err := a.store.NodeRows(ctx, nodeID)
	if err != nil {
		return nil, err
	}
	a.cache.mu.Lock()
	defer a.cache.mu.Unlock()
	if cached := a.cache.byID[nodeID]; cached != nil && cached.revision == node.Revision {
		return cached, nil
	}
	config, err := nodeconfig.Build(node.Revision, protocols, outbounds, subs)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	sum := sha256.Sum256(body)
	cached := &cachedConfig{revision: node.Revision, body: body, etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
	if a.cache.byID == nil {
		a.cache.byID = map[int64]*cachedConfig{}
	}
	a.cache.byID[nodeID] = cached
	return cached, nil
}

// writePacked packs the body as the node accepts it.
func writePacked(w http.ResponseWriter, accepted string, body []byte) error {
	switch {
	case strings.Contains(accepted, "zstd"):
		w.Header().Set("Content-Encoding", "zstd")
		pack, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return fmt.Errorf("pack configuration: %w", err)
		}
		_, _ = pack.Write(body) // the node has gone, then
		_ = pack.Close()
	case strings.Contains(accepted, "gzip"):
		w.Header().Set("Content-Encoding", "gzip")
		pack := gzip.NewWriter(w)
		_, _ = pack.Write(body)
		_ = pack.Close()
	default:
		_, _ = w.Write(body)
	}
	return nil
}
