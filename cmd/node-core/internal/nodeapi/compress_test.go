package nodeapi

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"nodeagent/cmd/node-core/internal/problem"
)

// compressedAnswer is what handler answers to a request with this Accept-Encoding.
func compressedAnswer(t *testing.T, accepted string, handler http.HandlerFunc) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Accept-Encoding", accepted)
	w := httptest.NewRecorder()
	compressed(handler).ServeHTTP(w, r)
	return w
}

// A problem is not compressed, whatever the request accepts.
func TestProblemsAreNotCompressed(t *testing.T) {
	w := compressedAnswer(t, "zstd, gzip", func(w http.ResponseWriter, _ *http.Request) {
		problem.New(http.StatusUnauthorized, "no_key", "the key is missing").Write(w)
	})
	if coding := w.Header().Get("Content-Encoding"); w.Code != http.StatusUnauthorized || coding != "" {
		t.Errorf("status %d, compressed with %q", w.Code, coding)
	}
}
