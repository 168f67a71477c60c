package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/coreapi"
)

// The names of many users are read by their ids, and the other users are not. A Core that does not know the
// parameter gives the whole list.
func TestNamesOfManyUsers(t *testing.T) {
	for _, old := range []bool{false, true} {
		var lists []string
		mux := http.NewServeMux()
		mux.HandleFunc("GET /api/v1/users", func(w http.ResponseWriter, r *http.Request) {
			lists = append(lists, r.URL.Query().Get("id"))
			if old && r.URL.Query().Has("id") {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusUnprocessableEntity)
				_ = json.NewEncoder(w).Encode(coreapi.Problem{Status: http.StatusUnprocessableEntity, Code: coreapi.CodeInvalidRequest})
				return
			}
			page := coreapi.Page[coreapi.User]{Items: []coreapi.User{}}
			for id := range int64(2000) {
				if old || strings.Contains(","+r.URL.Query().Get("id")+",", fmt.Sprint(",", id, ",")) {
					page.Items = append(page.Items, coreapi.User{ID: id, Name: fmt.Sprint("user-", id)})
				}
			}
			_ = json.NewEncoder(w).Encode(page)
		})
		path := filepath.Join(t.TempDir(), "s")
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
		go server.Serve(listener) //nolint:errcheck // it ends with the test
		t.Cleanup(func() { _ = server.Shutdown(context.Background()) })
		client := coreapi.OverSocket(filepath.Dir(path), path)
		t.Cleanup(client.Close)
		rows := make([]int64, 0, 2*namesPerList)
		for id := range int64(namesPerList + 1) {
			rows = append(rows, id+1, id+1, 0)
		}
		n, err := withNames(t.Context(), &shared{}, client, rows, func(id int64) (node, user, inbound int64) { return 0, id, 0 })
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range rows {
			if id != 0 && n.users[id] != fmt.Sprint("user-", id) {
				t.Fatalf("user %d has the name %q (a Core of before: %t)", id, n.users[id], old)
			}
		}
		if !old && (len(n.users) != namesPerList+1 || len(lists) != 2 || lists[1] != fmt.Sprint(namesPerList+1)) {
			t.Errorf("%d users were read by %d requests, want %d by 2", len(n.users), len(lists), namesPerList+1)
		}
		if old && len(lists) != 2 {
			t.Errorf("%d requests for the list of a Core of before, want 2: one that it refuses and one that it answers", len(lists))
		}
	}
}
