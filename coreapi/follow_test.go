package coreapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Each event comes once, wherever the connection is cut.
func TestFollowACutStream(t *testing.T) {
	const newest = 112
	var cut int    // bytes of an answer; 0 for all
	var whole bool // the last answer was not cut
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after, err := strconv.Atoi(r.Header.Get("Last-Event-ID"))
		if err != nil {
			t.Errorf("Last-Event-ID: %v", err)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		text := fmt.Sprintf("retry: 2000\nid: %d\n\n: still here\n\n", after)
		for id := after + 1; id <= newest; id++ {
			text += fmt.Sprintf("id: %d\ndata: {\"id\":%d,\"kind\":\"node.offline\"}\n\n", id, id)
		}
		text += fmt.Sprintf("id: %d\n\n", max(after, newest))
		if whole = cut == 0 || cut >= len(text); !whole {
			text = text[:cut]
		}
		_, _ = w.Write([]byte(text))
	}))
	defer server.Close()
	client, err := OverHTTPS(strings.Replace(server.URL, "127.0.0.1", "localhost", 1), "token", "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	follow := func(after *int64) (ids []int64) {
		if _, err := client.follow(context.Background(), after, nil, func(e Event) bool {
			ids = append(ids, e.ID)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return ids
	}
	for at, done := 1, false; !done; at++ {
		cut = at
		after := int64(newest - 4)
		got := follow(&after)
		if done = whole; !done {
			cut = 0
			got = append(got, follow(&after)...)
		}
		if want := []int64{109, 110, 111, 112}; !slices.Equal(got, want) || after != newest {
			t.Errorf("cut after %d bytes: got %d, then the cursor is %d; want %d", at, got, after, want)
		}
	}
}
