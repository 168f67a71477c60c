package nodeapi

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

func TestCompressedBodies(t *testing.T) {
	c := newCore(t)
	send := func(encoding string, body []byte) answer {
		return c.send(http.MethodPost, wire.PathUsage, map[string]string{"x-node-auth-key": c.key, "Content-Encoding": encoding}, string(body))
	}
	packed := func(text string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		return b.Bytes()
	}
	if a := send("gzip", packed(usageBody)); a.status != http.StatusOK || a.header.Get("Accept-Encoding") != "gzip" {
		t.Errorf("compressed: %+v", a)
	}
	if rows, _, _ := c.sums(); rows != 2 {
		t.Errorf("%d rows", rows)
	}
	// A small body that decompresses to a large one is too large.
	if a := send("gzip", packed(`{"entries":[`+strings.Repeat(" ", maxBatchBody)+`]}`)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a bomb: %d %s", a.status, a.body)
	}
	if a := send("gzip", []byte(usageBody)); a.status != http.StatusBadRequest {
		t.Errorf("not compressed: %d", a.status)
	}
	if a := send("br", []byte(usageBody)); a.status != http.StatusUnsupportedMediaType {
		t.Errorf("compressed with br: %d", a.status)
	}
}

// A body that comes too slowly says nothing about the batch: the answer makes the node send it
// again, and not set it aside.
func TestSlowBody(t *testing.T) {
	c := newCore(t)
	short := httptest.NewUnstartedServer(c.http.Config.Handler)
	short.Config.ReadTimeout = 300 * time.Millisecond
	short.Start()
	c.http.Close()
	c.http = short
	body, end := io.Pipe()
	defer end.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.http.URL+wire.PathUsage, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(wire.HeaderAuthKey, c.key)
	go func() { _, _ = io.WriteString(end, `{"entries":[`) }() // and then nothing more
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", resp.StatusCode)
	}
}
