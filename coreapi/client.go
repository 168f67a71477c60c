package coreapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"nodeagent/internal/secret"
)

// Prefix is where the API begins, below the address of Core.
const Prefix = "/api/v1"

// Headers of answers.
const (
	// HeaderWarning says what is wrong with Core as a whole, or what nodes will warn of. It may
	// stand several times.
	HeaderWarning = "Node-Core-Warning"
	// HeaderChange has what a request has changed of nodes' configurations: a Change as JSON.
	HeaderChange = "Node-Core-Change"
)

const (
	answerTimeout = 30 * time.Second // of a request that waits for nothing
	maxProblem    = 1 << 20          // bytes
)

// ErrNotRunning means that no Core serves the socket.
var ErrNotRunning = errors.New("node-core does not run in this data folder; start it with 'node-core serve'")

// Client calls the API of one Core. Its methods may be called from any goroutine.
type Client struct {
	base   string // without a slash at its end
	place  string // for errors
	token  secret.Text
	socket bool
	http   *http.Client
	// Warned is called for each HeaderWarning of an answer; nil for nobody.
	Warned func(text string)
}

// OverSocket makes a client of the Core that listens on a unix socket. dir is the folder of the
// socket, for errors. Nothing is sent yet.
func OverSocket(dir, path string) *Client {
	return &Client{base: "http://node-core", place: dir, socket: true, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}

// OverHTTPS makes a client of the Core at an address, https://HOST[:PORT][/PATH]. token is what
// 'node-core token add' has printed. pin is the hex SHA-256 of Core's certificate, which that
// command prints too, and empty to trust the system's authorities. Nothing is sent yet.
func OverHTTPS(address string, token secret.Text, pin string) (*Client, error) {
	base, err := url.Parse(strings.TrimRight(address, "/"))
	if err != nil || base.Host == "" || base.Scheme != "https" && (base.Scheme != "http" || !isLoopback(base.Hostname())) {
		return nil, fmt.Errorf("read the address of the API %q: want https://HOST[:PORT][/PATH]; plain http is for a loopback address alone", secret.URL(address))
	}
	config, err := tlsConfig(pin)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	return &Client{base: base.String(), place: secret.URL(address), token: token, http: &http.Client{
		Transport: transport,
		// A redirect could send the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func isLoopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }

// Close ends the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is one request.
type request struct {
	method string
	path   string // below Prefix, escaped
	query  url.Values
	body   any // nil for none
	header http.Header
	wait   time.Duration // for how long Core may hold the answer
}

// do sends a request and decodes the JSON of its answer into answer, unless that is nil. A
// problem that Core answers is a *Problem.
func (c *Client) do(ctx context.Context, r request, answer any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout+r.wait)
	defer cancel()
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if answer == nil {
		return resp.Header, nil
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return nil, fmt.Errorf("read the answer of %s %s: %w", r.method, r.path, err)
	}
	return resp.Header, nil
}

// send sends a request, and returns an answer that is a success. The caller closes its body.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	for _, text := range resp.Header.Values(HeaderWarning) {
		if c.Warned != nil {
			c.Warned(text)
		}
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var p Problem
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(&p); err != nil || p.Code == "" {
		return nil, fmt.Errorf("%s %s: the answer is %s, and no problem of Core's API; is %s the address of a node-core?", r.method, r.path, resp.Status, c.place)
	}
	return nil, &p
}

func (c *Client) newRequest(ctx context.Context, r request) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		encoded, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode the body of %s %s: %w", r.method, r.path, err)
		}
		body = bytes.NewReader(encoded)
	}
	address := c.base + Prefix + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	maps.Copy(req.Header, r.header)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	return req, nil
}

// unreachable says why no answer came.
func (c *Client) unreachable(err error) error {
	switch {
	case c.socket && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		return fmt.Errorf("%w (%s)", ErrNotRunning, c.place)
	case c.socket && errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("reach node-core in %s: permission denied; run as the user that owns the data folder", c.place)
	case c.socket:
		return fmt.Errorf("reach node-core in %s: %w", c.place, err)
	}
	return fmt.Errorf("reach the API of node-core at %s: %w", c.place, err)
}

// call sends a request without a change of nodes, and returns its answer.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (answer T, err error) {
	_, err = c.do(ctx, request{method: method, path: path, query: query, body: body}, &answer)
	return answer, err
}

// change sends a request that changes nodes' configurations, and returns what it has changed.
func change[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (answer T, changed Change, err error) {
	header, err := c.do(ctx, request{method: method, path: path, query: query, body: body}, &answer)
	if err != nil {
		return answer, changed, err
	}
	if raw := header.Get(HeaderChange); raw != "" {
		if err := json.Unmarshal([]byte(raw), &changed); err != nil {
			return answer, changed, fmt.Errorf("read what %s %s has changed: %w", method, path, err)
		}
	}
	return answer, changed, nil
}

// segment is a name or an id as a part of a path.
func segment(word string) string {
	if word == "" {
		return "%20" // no row has this name, and an empty segment would be another path
	}
	return strings.ReplaceAll(url.PathEscape(word), ".", "%2E") // ".." would be a step to another folder
}
