package adminapi

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
)

// happen makes an event: a new user connects for the first time. It returns the user's id.
func happen(t testing.TB, s *Server) int64 {
	t.Helper()
	user, err := s.store.AddUser(t.Context(), fmt.Sprintf("user-%d", time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.AddSessionEvents(t.Context(), 1, "", []wire.SessionEvent{{UserID: user.ID, Protocol: "vless", EventType: wire.Online, OccurredAt: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	return user.ID
}

// eventServer serves the API over HTTP, with a token.
func eventServer(t *testing.T) (s *Server, url, token string, end func()) {
	t.Helper()
	s = newServer(t)
	s.store.OnEvent(s.hub.Happened)
	token = addToken(t, s, coreapi.NewToken{Name: "reader", Role: coreapi.ReadOnly})
	server := httptest.NewServer(s.TokenHandler())
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return s, server.URL, token, server.CloseClientConnections
}

// message is one message of a stream.
type message struct{ id, event, data string }

// openStream reads a stream. The channel is closed at its end.
func openStream(ctx context.Context, t testing.TB, url, token, last string) <-chan message {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+coreapi.Prefix+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "text/event-stream")
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(r) //nolint:bodyclose // the goroutine below closes it
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream is answered with %s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	messages := make(chan message)
	go func() {
		defer resp.Body.Close()
		defer close(messages)
		lines := bufio.NewScanner(resp.Body)
		var m message
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				m.id = value
			case "event":
				m.event = value
			case "data":
				m.data = value
			case "":
				select {
				case messages <- m:
				case <-ctx.Done():
					return
				}
				m = message{}
			}
		}
	}()
	return messages
}

// Whatever connections break, and wherever, a reader that goes on with the last id gets each event once
// and in order.
func TestStreamsOverReconnections(t *testing.T) {
	s, url, token, _ := eventServer(t)
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue { // each event is a write to the disk
		if err := flag.Set("rapid.checks", "25"); err != nil {
			t.Fatal(err)
		}
		defer flag.Set("rapid.checks", checks.DefValue) //nolint:errcheck // it is the value of before
	}
	rapid.Check(t, func(rt *rapid.T) {
		var want, got []int64
		newest, err := s.store.NewestEvent(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		last := strconv.FormatInt(newest, 10)
		end := func() {}
		var messages <-chan message
		connect := func() {
			end()
			var ctx context.Context
			ctx, end = context.WithCancel(t.Context())
			messages = openStream(ctx, t, url, token, last)
		}
		defer func() { end() }()
		connect()
		// take reads until as many events are there, and notes the ids as a browser does.
		take := func(n int) {
			for len(got) < n {
				m, open := <-messages
				if !open {
					rt.Fatal("the stream has ended")
				}
				if m.id != "" {
					last = m.id
				}
				if m.data == "" {
					continue
				}
				var e coreapi.Event
				if err := json.Unmarshal([]byte(m.data), &e); err != nil || strconv.FormatInt(e.ID, 10) != m.id {
					rt.Fatalf("got %+v, %v", m, err)
				}
				got = append(got, e.UserID)
			}
		}
		for range rapid.IntRange(1, 5).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"happens", "read", "cut"}).Draw(rt, "step") {
			case "happens":
				for range rapid.IntRange(1, 3).Draw(rt, "events") {
					want = append(want, happen(t, s))
				}
			case "read":
				take(rapid.IntRange(len(got), len(want)).Draw(rt, "until"))
			case "cut":
				connect()
			}
		}
		want = append(want, happen(t, s))
		take(len(want))
		if !slices.Equal(got, want) {
			rt.Fatalf("the reader got %v, and %v happened", got, want)
		}
	})
}

// FollowEvents goes on where it was when its connection is cut.
func TestFollowOverACut(t *testing.T) {
	s, url, token, end := eventServer(t)
	client, err := coreapi.OverHTTPS(url, secret.Text(token), "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	want := []int64{happen(t, s)}
	var got []int64
	for e, err := range client.FollowEvents(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.UserID)
		if len(got) == 3 {
			break
		}
		end()
		want = append(want, happen(t, s))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, and %v happened", got, want)
	}
	for _, err := range client.FollowEvents(t.Context(), 0, "no.such") {
		if err == nil || !strings.Contains(err.Error(), "no.such") {
			t.Errorf("a kind that is unknown: %v", err)
		}
	}
}

// The path has three answers. The one without a cursor is what it was before there were cursors.
func TestEventsAsPages(t *testing.T) {
	s, _, token, _ := eventServer(t)
	ids := []int64{happen(t, s), happen(t, s), happen(t, s)}
	ask := func(query string, answer any) {
		t.Helper()
		w := request(t, s, http.MethodGet, coreapi.Prefix+"/events"+query, token, "")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Fatalf("%s is answered with %d, %s", query, w.Code, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), answer); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	var sessions []coreapi.EventRow
	ask("", &sessions)
	if len(sessions) != 3 || sessions[0].EventType != wire.Online {
		t.Errorf("the sessions are %+v", sessions)
	}
	var page coreapi.EventPage
	ask("?after=0&limit=2", &page)
	if len(page.Events) != 2 || page.Events[0].UserID != ids[0] || page.Events[0].Kind != coreapi.EventFirstConnected || page.Events[0].User == "" || page.Lost {
		t.Errorf("the first page is %+v", page)
	}
	next := page.Next
	ask(fmt.Sprintf("?after=%d", next), &page)
	if len(page.Events) != 1 || page.Events[0].UserID != ids[2] {
		t.Errorf("the second page is %+v", page)
	}
	var none coreapi.EventPage
	ask(fmt.Sprintf("?after=%d&kind=node.offline,node.online", next), &none)
	if len(none.Events) != 0 || none.Next != page.Next {
		t.Errorf("a page of other kinds is %+v", none)
	}
	if err := s.store.Upkeep(t.Context(), time.Now().AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if ask(fmt.Sprintf("?after=%d", next), &page); !page.Lost {
		t.Error("nothing says that an event was deleted unread")
	}
	for _, query := range []string{"?after=x", "?after=-1", "?kind=node.online", "?after=0&kind=x", "?after=0&limit=0"} {
		if w := request(t, s, http.MethodGet, coreapi.Prefix+"/events"+query, token, ""); w.Code/100 != 4 {
			t.Errorf("%s is answered with %d, %s", query, w.Code, w.Body)
		}
	}
}

// A stream says that events were deleted unread, and ends with its token. Streams are bounded.
func TestEndsOfStreams(t *testing.T) {
	s, url, token, _ := eventServer(t)
	happen(t, s)
	happen(t, s)
	first, err := s.store.NewestEvent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.Upkeep(t.Context(), time.Now().AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	messages := openStream(t.Context(), t, url, token, strconv.FormatInt(first-1, 10))
	for m := range messages {
		if m.event == string(coreapi.EventsLost) {
			break
		}
	}
	if _, err := s.store.RemoveToken(t.Context(), "reader"); err != nil {
		t.Fatal(err)
	}
	happen(t, s)
	for m := range messages {
		if strings.Contains(m.data, string(coreapi.EventFirstConnected)) {
			t.Error("a removed token still reads events")
		}
	}
	token = addToken(t, s, coreapi.NewToken{Name: "other", Role: coreapi.ReadOnly})
	var leave []func()
	enter := func(name string, n int) {
		for range n {
			one, err := s.streams.enter(name)
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, one)
		}
	}
	refused := func() {
		t.Helper()
		if w := request(t, s, http.MethodGet, coreapi.Prefix+"/events", token, "", "Accept", "text/event-stream"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), coreapi.CodeTooManyStreams) {
			t.Errorf("one stream too many is answered with %d, %s", w.Code, w.Body)
		}
	}
	enter("other", maxStreamsEach) // of the one caller
	refused()
	for _, each := range leave {
		each()
	}
	for i := range maxStreams / maxStreamsEach {
		enter(fmt.Sprint("token-", i), maxStreamsEach)
	}
	refused()
}
