package delivery

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

// page is what stands in the place of Core, and can be changed.
type page struct {
	mu          sync.Mutex
	status      int
	contentType string
	body        string
}

func (p *page) set(status int, contentType, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.contentType, p.body = status, contentType, body
}

func (p *page) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header()["Content-Type"] = nil
	if p.contentType != "" {
		w.Header().Set("Content-Type", p.contentType)
	}
	w.WriteHeader(p.status)
	_, _ = io.WriteString(w, p.body) // the client may have gone
}

// acknowledges tells whether a body of a 2xx is a success, as encoding/json understands it.
func acknowledges(body string) bool {
	var object map[string]any
	if body == "" {
		return true
	}
	if json.Unmarshal([]byte(body), &object) != nil {
		return false
	}
	ok, says := object["ok"]
	return !says || ok != false
}

// Whatever stands in the place of Core: a batch leaves the outbox only by an acknowledgement, and
// then it does.
func TestNothingButAnAcknowledgementRemovesABatch(t *testing.T) {
	strange := &page{}
	server := httptest.NewServer(strange)
	defer server.Close()
	client, err := coreclient.New(coreclient.Config{CoreURL: server.URL}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	db := openStore(t)
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.OneOf(
			rapid.SampledFrom([]string{"", "<html>", `{"ok":true}`, `{"ok":false}`, `{"ok":null}`, `{"error":"no"}`, `{"ok":true`, "OK", "\x1b[2J", `{"a":{"ok":false}}`}),
			rapid.StringMatching(`\{("ok"|"o\\u006b"|"a"):(true|false|1|"x"|\{\}|\[)\}?[ \n]*`),
			rapid.String(),
		).Draw(t, "body")
		status := rapid.SampledFrom([]int{200, 200, 200, 201, 202, 203, 301, 304, 307}).Draw(t, "status")
		kind := rapid.SampledFrom([]store.Kind{store.KindEvents, store.KindReports}).Draw(t, "kind")
		courier := newTestCourier(client, db)
		now := time.Now()
		var err error
		if kind == store.KindReports {
			err = db.Report(now, wire.PathError, wire.ErrorRequest{Message: "x"})
		} else {
			err = db.Sessions(now, []store.SessionEvent{{SessionKey: store.SessionKey{Slot: 1}, Event: wire.SessionEvent{UserID: 1, EventType: wire.Online, OccurredAt: now}}})
		}
		if err != nil {
			t.Fatal(err)
		}
		strange.set(status, rapid.SampledFrom([]string{"", "text/html", "application/json", "text/plain"}).Draw(t, "type"), body)
		taken := status/100 == 2 && acknowledges(body)
		_, err = courier.deliverOne(t.Context(), courier.lanes[kind], 0)
		waiting, werr := db.Waiting()
		if werr != nil {
			t.Fatal(werr)
		}
		isTaken := waiting.Batches[kind] == 0
		// A scalar is taken only where the content type says that it is JSON; acknowledges knows objects alone.
		if !taken && isTaken && !json.Valid([]byte(body)) || taken && !isTaken {
			t.Fatalf("%d %q: the batch has left the outbox: %v, want %v (%v)", status, body, isTaken, taken, err)
		}
		if !isTaken && (err == nil || len(courier.deps.Link.Strange()) != 1) {
			t.Fatalf("%d %q: error %v, and the link knows %v", status, body, err, courier.deps.Link.Strange())
		}
		if waiting.Aside != 0 {
			t.Fatalf("%d %q: the batch is set aside", status, body)
		}
		strange.set(200, "application/json", `{"ok":true}`)
		if !isTaken {
			if more, err := courier.deliverOne(t.Context(), courier.lanes[kind], 0); err != nil || !more {
				t.Fatalf("the batch is not delivered to Core itself: %v, %v", more, err)
			}
			if left := courier.deps.Link.Strange(); len(left) != 0 {
				t.Fatalf("the link still knows %v", left)
			}
		}
	})
}
