package nodeapi

import (
	"net/http"
	"strings"
	"testing"

	"nodeagent/coreclient/wire"
)

func TestConfigIsCachedAndCompressed(t *testing.T) {
	c := newCore(t)
	get := func(header map[string]string) answer {
		header["x-node-auth-key"] = c.key
		return c.send(http.MethodGet, wire.PathConfig, header, "")
	}
	plain := get(map[string]string{"Accept-Encoding": "identity"})
	var config wire.NodeConfig
	c.want(http.StatusOK, plain, &config)
	if config.Revision != c.revision() || config.ClientMap == nil ||
		!strings.HasPrefix(string(config.Services.Xray), `{"inbounds":[],"outbounds":[{"protocol":"freedom","settings":{"finalRules":[{"action":"block","ip":["0.0.0.0/8",`) {
		t.Errorf("config %s", plain.body)
	}
	etag := plain.header.Get("ETag")
	for _, match := range []string{etag, "W/" + etag, `"other", ` + etag} {
		if a := get(map[string]string{"If-None-Match": match}); a.status != http.StatusNotModified || a.body != "" {
			t.Errorf("If-None-Match %s: %d %q", match, a.status, a.body)
		}
	}
	for accepted, want := range map[string]string{"zstd, gzip": "zstd", "zstd;q=0, gzip": "gzip", "gzip, zstd;q=0.5": "gzip", "br": ""} {
		if a := get(map[string]string{"Accept-Encoding": accepted}); a.header.Get("Content-Encoding") != want {
			t.Errorf("Accept-Encoding %s: compressed with %q", accepted, a.header.Get("Content-Encoding"))
		}
	}
}
