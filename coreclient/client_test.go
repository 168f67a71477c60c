package coreclient

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"nodeagent/coreclient/wire"
)

// core is a Core that answers every request with handle.
func core(t *testing.T, handle http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return clientOf(t, Config{CoreURL: server.URL + "/api/", AuthKey: "the-key", UserAgent: func() string { return "test" }})
}

func clientOf(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.http.RetryWaitMin, c.http.RetryWaitMax = time.Millisecond, 2*time.Millisecond
	return c
}

func TestRequestsAreAsTheContractSays(t *testing.T) {
	var got *http.Request
	var body string
	c := core(t, func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		got, body = r, string(raw)
		w.WriteHeader(http.StatusCreated) // any 2xx is success
		_, _ = w.Write([]byte(`{"ok":true,"needSync":true,"more":1}`))
	})
	revision := int64(7)
	answer, err := c.Heartbeat(t.Context(), wire.HeartbeatRequest{IP: "192.0.2.1", Revision: &revision}, "", "key-1", 25*time.Second)
	if err != nil || !answer.NeedSync {
		t.Fatalf("heartbeat: %+v, %v", answer, err)
	}
	if got.Method != http.MethodPost || got.URL.Path != "/api/node/heartbeat" || body != `{"ip":"192.0.2.1","revision":7}` {
		t.Errorf("sent %s %s %s", got.Method, got.URL.Path, body)
	}
	for name, want := range map[string]string{
		"x-node-auth-key": "the-key", "Idempotency-Key": "key-1", "Prefer": "wait=25", "User-Agent": "test", "Content-Type": "application/json",
	} {
		if have := got.Header.Get(name); have != want {
			t.Errorf("header %s is %q, want %q", name, have, want)
		}
	}
}

func TestErrorsSayWhatToDoNext(t *testing.T) {
	for _, c := range []struct {
		status int
		class  Class
	}{
		{401, Rejected},
		{403, Rejected},
		{404, Missing},
		{405, Missing},
		{413, TooLarge},
		{400, Refused},
		{409, Refused},
		{422, Refused},
		{408, Unreachable},
		{429, Unreachable},
		{500, Unreachable},
		{502, Unreachable},
		{503, Unreachable},
	} {
		client := core(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "17")
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(`{"code":"some_code","detail":"some words"}`))
		})
		err := client.Post(t.Context(), wire.PathUsage, "k", []byte(`{}`))
		answer, ok := errors.AsType[*Error](err)
		if !ok || answer.Status != c.status || answer.Code != "some_code" || answer.Detail != "some words" {
			t.Errorf("%d: got %v", c.status, err)
		}
		if ClassOf(err) != c.class || RetryAfter(err) != 17*time.Second {
			t.Errorf("%d: class %d, retry after %s; want %d, 17s", c.status, ClassOf(err), RetryAfter(err), c.class)
		}
	}
}

func TestWhatIsNotCoreIsNamed(t *testing.T) {
	for name, handle := range map[string]http.HandlerFunc{
		"HTML": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>welcome</html>"))
		},
		"cut JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"authKey":"a`)) },
		"empty":    func(http.ResponseWriter, *http.Request) {},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/login", http.StatusFound)
		},
		"an answer without key": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"ok":true}`)) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := core(t, handle).Register(t.Context(), "k", `{}`)
			if !errors.Is(err, ErrNotCore) {
				t.Errorf("got %v, want ErrNotCore", err)
			}
		})
	}
}

func TestNodeIDMayBeNumberOrString(t *testing.T) {
	for _, id := range []string{`17`, `"17"`} {
		c := core(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"authKey":"k","nodeId":` + id + `}`))
		})
		answer, err := c.Register(t.Context(), "k", `{}`)
		if err != nil || answer.NodeID != "17" {
			t.Errorf("nodeId %s: %+v, %v", id, answer, err)
		}
	}
}

func TestBadGatewayIsTriedAgainWithTheSameKey(t *testing.T) {
	var tries atomic.Int32
	var keys []string
	c := core(t, func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		if tries.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	if err := c.Post(t.Context(), wire.PathUsage, "k", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if strings.Join(keys, " ") != "k k k" {
		t.Errorf("keys %v", keys)
	}
}

func TestConfigUnpacksAndRemembersItsETag(t *testing.T) {
	const body = `{"revision":1}`
	for _, encoding := range []string{"", "gzip", "zstd"} {
		c := core(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"e"`)
			if r.Header.Get("If-None-Match") == `"e"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.Header().Set("Content-Encoding", encoding)
			switch encoding {
			case "gzip":
				z := gzip.NewWriter(w)
				_, _ = z.Write([]byte(body))
				_ = z.Close()
			case "zstd":
				z, _ := zstd.NewWriter(w)
				_, _ = z.Write([]byte(body))
				_ = z.Close()
			default:
				_, _ = w.Write([]byte(body))
			}
		})
		got, etag, changed, err := c.Config(t.Context(), "")
		if err != nil || !changed || string(got) != body || etag != `"e"` {
			t.Errorf("%q: %s, %s, %v, %v", encoding, got, etag, changed, err)
		}
		if _, _, changed, err := c.Config(t.Context(), etag); err != nil || changed {
			t.Errorf("%q: with its ETag: changed %v, %v", encoding, changed, err)
		}
	}
}

// A few kilobytes that become gigabytes cost no more memory than a small document may.
func TestBodiesOutOfProportionAreRefused(t *testing.T) {
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	spaces := bytes.Repeat([]byte{' '}, 1<<20)
	for range 240 {
		_, _ = z.Write(spaces)
	}
	_, _ = z.Write([]byte(`{"revision":1}`))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	c := core(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "zstd")
		_, _ = w.Write(packed.Bytes())
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, _, err = c.Config(t.Context(), "")
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "compressed bytes became more than") {
		t.Errorf("got %v", err)
	}
	// Unbounded, the buffer would grow to twice the 240 MB.
	if took := after.TotalAlloc - before.TotalAlloc; took > 200<<20 {
		t.Errorf("%d compressed bytes took %d bytes of memory", packed.Len(), took)
	}
}

// Bodies are packed once Core has said that it takes them so.
func TestBodiesArePackedWhereCoreTakesThem(t *testing.T) {
	body := []byte(`{"entries":[` + strings.Repeat(" ", 5000) + `]}`)
	for _, accepts := range []string{"", "zstd, gzip"} {
		var encodings, bodies []string
		c := core(t, func(w http.ResponseWriter, r *http.Request) {
			reader := io.Reader(r.Body)
			if r.Header.Get("Content-Encoding") == "gzip" {
				reader, _ = gzip.NewReader(r.Body)
			}
			raw, _ := io.ReadAll(reader)
			encodings, bodies = append(encodings, r.Header.Get("Content-Encoding")), append(bodies, string(raw))
			w.Header().Set("Accept-Encoding", accepts)
		})
		for range 2 {
			if err := c.Post(t.Context(), wire.PathUsage, "k", body); err != nil {
				t.Fatal(err)
			}
		}
		want := []string{"", ""}
		if accepts != "" {
			want[1] = "gzip"
		}
		if !slices.Equal(encodings, want) || bodies[0] != string(body) || bodies[1] != string(body) {
			t.Errorf("Core accepts %q: sent as %q", accepts, encodings)
		}
	}
}

func TestTrust(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"ok":true}`)) }))
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	sum := sha256.Sum256(server.Certificate().Raw)
	right := hex.EncodeToString(sum[:])
	wrong := strings.Repeat("00", 32)
	for name, c := range map[string]struct {
		pin  string
		good bool
	}{"no pin": {"", false}, "the wrong pin": {wrong, false}, "the pin": {right, true}} {
		t.Run(name, func(t *testing.T) {
			err := clientOf(t, Config{CoreURL: server.URL, Pin: c.pin}).Post(t.Context(), wire.PathError, "k", []byte(`{}`))
			if c.good != (err == nil) {
				t.Errorf("got %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "join token") {
				t.Errorf("the error does not say what to do: %v", err)
			}
		})
	}
}

func TestSkewIsMeasured(t *testing.T) {
	c := core(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
	})
	if err := c.Post(t.Context(), wire.PathError, "k", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if skew := c.Skew(); skew < 59*time.Minute || skew > 61*time.Minute {
		t.Errorf("skew %s, want about an hour", skew)
	}
}

func TestSilenceEnds(t *testing.T) {
	release := make(chan struct{})
	c := core(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Post(ctx, wire.PathUsage, "k", []byte(`{}`)); !errors.Is(err, context.DeadlineExceeded) || ClassOf(err) != Unreachable {
		t.Errorf("got %v", err)
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-5": 0, "junk": 0, "99999999": maxRetryAfter,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute,
	} {
		if got := parseRetryAfter(header, now); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}

func FuzzJoinToken(f *testing.F) {
	f.Add(wire.JoinToken{CoreURL: "https://core.example", Code: "AAAA", Pin: "00"}.Encode())
	f.Add("nj1_")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := wire.ParseJoinToken(text)
		if err != nil {
			return
		}
		if again, err := wire.ParseJoinToken(token.Encode()); err != nil || again != token {
			t.Errorf("%+v became %+v, %v", token, again, err)
		}
	})
}
