package e2e

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"

	"nodeagent/coreclient/wire"
)

func itoa(n int) string { return strconv.Itoa(n) }

func parseToken(token string) (wire.JoinToken, error) { return wire.ParseJoinToken(token) }

// dropAnswers is a proxy before a Core. While lose is set it forwards each request, lets it take
// effect, and drops the answer.
func dropAnswers(t *testing.T, core string) (address string, lose *atomic.Bool) {
	t.Helper()
	to, err := url.Parse(core)
	must(t, err)
	lose = new(atomic.Bool)
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !lose.Load() {
			forward.ServeHTTP(w, r)
			return
		}
		forward.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(server.Close)
	return server.URL, lose
}
