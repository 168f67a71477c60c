package nodeapi

import (
	"bytes"
	"crypto/rand"
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

// A text that repeats after megabytes is compressed, as a client's UUID in the next inbound.
func TestZstdFindsDistantRepetitions(t *testing.T) {
	once := make([]byte, 2<<20)
	_, _ = rand.Read(once) // never fails
	body := bytes.Repeat(once, 2)
	packed := pack(body)
	if len(packed) > len(once)*5/4 {
		t.Errorf("%d bytes became %d, want about %d", len(body), len(packed), len(once))
	}
	var got bytes.Buffer
	if err := unpackTo(&got, packed); err != nil || !bytes.Equal(got.Bytes(), body) {
		t.Errorf("%d bytes come out, want the same %d (%v)", got.Len(), len(body), err)
	}
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
