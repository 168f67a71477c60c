package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"nodeagent/store"
)

// pagedCore stands before Core and shows a page in its place while there is one.
type pagedCore struct {
	*httptest.Server
	page atomic.Pointer[shownPage]
}

type shownPage struct {
	contentType, body string
	shown             string // in the status
}

func newPagedCore(t *testing.T, core string) *pagedCore {
	t.Helper()
	to, err := url.Parse(core)
	must(t, err)
	p := &pagedCore{}
	forward := &httputil.ReverseProxy{
		Transport: &http.Transport{TLSClientConfig: trustAll()},
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if page := p.page.Load(); page != nil {
			w.Header().Set("Content-Type", page.contentType)
			_, _ = io.WriteString(w, page.body) // the agent may have gone
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// waiting returns how many batches of each kind wait for Core.
func (a *Agent) waiting(ctx context.Context) (map[store.Kind]int, error) {
	var list struct {
		Waiting store.Waiting `json:"waiting"`
	}
	err := outputJSON(ctx, &list, a.path, "outbox", "list", "--runtime-dir", a.file("run"))
	return list.Waiting.Batches, err
}

// A page of maintenance, a login, and a Core that says no are not taken for Core: traffic and
// sessions of that time reach Core once it is back, all of them, and once.
func TestAPageInThePlaceOfCore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paged := newPagedCore(t, "https://"+w.core.listen)
	var added struct{ Code string }
	must(t, w.core.Do(w.ctx, &added, "node", "code", "node"))
	var err error
	w.agent, err = NewAgent(w.ctx, w.progs, filepath.Join(w.dir, "paged"), quickConfig, "--core", paged.URL, "--code", added.Code)
	must(t, err)
	protocol := w.protocol()
	alice := w.subscriber("alice")
	w.start()
	target := w.target()
	client := w.linkClient(alice.Links[0])
	must(t, client.Exchange(target.Addr(), 100_000, 200_000))
	for i, page := range []shownPage{
		{"text/html", "<html><h1>Back soon\x1b[2J</h1></html>", `begins with "<html><h1>Back soon[2J</h1></html>"`},
		{"text/plain", "OK", `begins with "OK"`},
		{"application/json", `{"ok":false,"error":"maintenance"}`, `maintenance`},
	} {
		paged.page.Store(&page)
		must(t, client.Exchange(target.Addr(), 300_000, 400_000))
		must(t, w.agent.Stop()) // which sends what there is
		must(t, w.agent.Start(w.ctx))
		must(t, Eventually(w.ctx, func() error {
			waiting, err := w.agent.waiting(w.ctx)
			if err == nil && (waiting[store.KindUsage] <= i || waiting[store.KindOutbound] <= i || waiting[store.KindEvents] <= i) {
				err = fmt.Errorf("page %d: %v wait, want batches of each kind", i, waiting)
			}
			return err
		}))
		must(t, Eventually(w.ctx, func() error {
			text, err := w.agent.StatusText(w.ctx)
			if err == nil && (!strings.Contains(text, "not Core") || !strings.Contains(text, "200 OK, "+page.contentType) ||
				!strings.Contains(text, page.shown) || strings.Contains(text, "\x1b")) {
				err = fmt.Errorf("page %d: status says\n%s", i, text)
			}
			return err
		}))
		must(t, Eventually(w.ctx, func() error { return client.Exchange(target.Addr(), 0, 1) })) // serves on
	}
	paged.page.Store(nil)
	must(t, Eventually(w.ctx, func() error {
		text, err := w.agent.StatusText(w.ctx)
		if err == nil && strings.Contains(text, "not Core") {
			err = fmt.Errorf("status still says\n%s", text)
		}
		return err
	}))
	w.stopAgent()
	want := map[Account]Traffic{{alice.UserID, protocol.ID}: target.Traffic()}
	w.wantUsage(want)
	w.wantSubscription(alice, want)
	w.wantOutbound(want)
	w.wantEvents(map[int64]int{alice.UserID: 4}) // one for each daemon
}
