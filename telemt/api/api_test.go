package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// newTelemt serves the answers by path, with a status of 200 unless the answer begins
// with another one. It returns a Client for them.
func newTelemt(t *testing.T, answers map[string]string) *Client {
	t.Helper()
	const authorization = "Bearer test"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, known := answers[r.URL.Path]
		switch {
		case r.URL.Path != "/metrics" && r.Header.Get("Authorization") != authorization:
			w.WriteHeader(http.StatusUnauthorized)
			return
		case !known:
			answer = `404 {"ok":false,"error":{"code":"not_found","message":"Route not found"}}`
		}
		var status int
		if n, _ := fmt.Sscanf(answer, "%d ", &status); n == 1 {
			w.WriteHeader(status)
			_, answer, _ = strings.Cut(answer, " ")
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "http://")
	return New(Endpoints{API: address, Metrics: address, Authorization: authorization})
}

func TestHealth(t *testing.T) {
	const ready, quality = "/v1/health/ready", "/v1/runtime/upstream-quality"
	const isReady = `{"ok":true,"data":{"ready":true}}`
	for name, c := range map[string]struct {
		answers map[string]string
		want    string
		fails   bool
	}{
		"reachable":       {answers: map[string]string{ready: isReady, quality: `{"ok":true,"data":{"upstreams":[{"healthy":true,"fails":3},{"healthy":true,"fails":0}]}}`}},
		"no upstream yet": {answers: map[string]string{ready: isReady, quality: `{"ok":true,"data":{"upstreams":[]}}`}},
		"an old release":  {answers: map[string]string{ready: isReady}},
		"unreachable": {
			answers: map[string]string{ready: isReady, quality: `{"ok":true,"data":{"upstreams":[{"healthy":false,"fails":0},{"healthy":true,"fails":1}]}}`},
			want:    "no Telegram data centre is reachable through any upstream",
		},
		"not ready":     {answers: map[string]string{ready: `{"ok":true,"data":{"ready":false,"reason":"no pool"}}`}, want: "telemt is not ready: no pool"},
		"an error":      {answers: map[string]string{ready: isReady, quality: `500 {"ok":false,"error":{"code":"internal","message":"broken"}}`}, fails: true},
		"another error": {answers: map[string]string{ready: `503 {"ok":false,"error":{"code":"x","message":"broken"}}`}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			problem, err := newTelemt(t, c.answers).Health(t.Context())
			if problem != c.want || (err != nil) != c.fails {
				t.Errorf("got %q and %v, want %q and an error: %v", problem, err, c.want, c.fails)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	const path = "/v1/users"
	for name, c := range map[string]struct {
		answer  string
		message string // of the *Error; empty if the error is another one
	}{
		"telemt's error":          {`400 {"ok":false,"error":{"code":"bad","message":"unknown config keys"}}`, "unknown config keys"},
		"no error and not ok":     {`{"ok":false,"data":[]}`, ""},
		"no JSON":                 {`502 <html>`, ""},
		"data of another type":    {`{"ok":true,"data":{}}`, ""},
		"an answer that is empty": {``, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newTelemt(t, map[string]string{path: c.answer}).Users(t.Context())
			answer, ok := errors.AsType[*Error](err)
			switch {
			case err == nil:
				t.Error("there is no error")
			case ok != (c.message != "") || ok && answer.Message != c.message:
				t.Errorf("got %#v, want an *Error with the message %q", err, c.message)
			}
		})
	}
	users, err := newTelemt(t, map[string]string{path: `{"ok":true,"data":[{"username":"a","enabled":true,"in_runtime":true},{"username":"b"}]}`}).Users(t.Context())
	if err != nil || len(users) != 2 || !reflect.DeepEqual(users["a"], User{Name: "a", Enabled: true, InRuntime: true}) {
		t.Errorf("got %+v and %v", users, err)
	}
}

// telemt accepts a drain of 1 s to 1 h.
func TestReloadLimitsDrain(t *testing.T) {
	for drain, want := range map[time.Duration]int{0: 1, 90 * time.Second: 90, 2 * time.Hour: 3600} {
		var sent struct {
			Seconds int `json:"timeout_secs"`
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = json.NewDecoder(r.Body).Decode(&sent)
			_, _ = w.Write([]byte(`{"ok":true,"data":{"reload_id":7}}`))
		}))
		id, err := New(Endpoints{API: strings.TrimPrefix(server.URL, "http://")}).Reload(t.Context(), drain)
		server.Close()
		if err != nil || id != 7 || sent.Seconds != want {
			t.Errorf("drain %s: got %d and %v, and telemt was sent %d s, want %d", drain, id, err, sent.Seconds, want)
		}
	}
}

func TestMetricsNeedStatusOK(t *testing.T) {
	const text = "telemt_uptime_seconds 1\n"
	sample, err := newTelemt(t, map[string]string{"/metrics": text}).Metrics(t.Context())
	if err != nil || sample.Uptime != time.Second || time.Since(sample.At) > time.Minute {
		t.Errorf("got %+v and %v", sample, err)
	}
	if _, err := newTelemt(t, map[string]string{"/metrics": "403 " + text}).Metrics(t.Context()); err == nil {
		t.Error("metrics with status 403 were accepted")
	}
}

// An answer that does not end, or does not come, is given up, and little of it is held.
func TestAnswersAreBounded(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"without an end": func(w http.ResponseWriter, _ *http.Request) {
			block := []byte(strings.Repeat("x", 1<<20))
			_, err := w.Write([]byte(`{"ok":true,"data":"`))
			for err == nil {
				_, err = w.Write(block)
			}
		},
		"that is deep": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"ok":true,"data":` + strings.Repeat("[", maxAnswer/2)))
		},
		"that does not come": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			address := strings.TrimPrefix(server.URL, "http://")
			client := New(Endpoints{API: address, Metrics: address})
			client.http.Timeout = min(client.http.Timeout, time.Second)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := client.Users(t.Context()); err == nil {
				t.Error("it is an answer")
			}
			if _, err := client.Metrics(t.Context()); err == nil && name != "that is deep" {
				t.Error("it has metrics")
			}
			runtime.ReadMemStats(&after)
			if held := (after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc)) >> 20; held > 8*maxAnswer>>20 {
				t.Errorf("%d MB are held", held)
			}
		})
	}
}
