package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"nodeagent/agent"
	"nodeagent/internal/e2e"
)

// A stranger at the metrics who says nothing, or does not come to an end, is not kept.
func TestMetricsBoundStrangers(t *testing.T) {
	port, err := e2e.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	defer serveMetrics(address, newMetrics(func() (agent.Status, error) { return agent.Status{}, nil }), slog.New(slog.DiscardHandler))()
	dial := func(says string) net.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		go func() { _, _ = io.WriteString(conn, says) }()
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	answer, err := http.ReadResponse(bufio.NewReader(dial("GET /metrics HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", 2*metricsHeader)+"\r\n\r\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a long header: %s", answer.Status)
	}
	for _, says := range []string{"", "GET /metrics HTTP/1.1\r\nHost: a\r\nX: ", "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"} {
		if _, err := io.ReadAll(dial(says)); os.IsTimeout(err) {
			t.Errorf("the connection that says %q is kept", says)
		}
	}
}
