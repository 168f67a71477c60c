package coreclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/klauspost/compress/gzip"

	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
	"nodeagent/internal/logkey"
	"nodeagent/internal/secret"
)

const (
	dialTimeout  = 10 * time.Second
	requestLimit = 30 * time.Second // for all tries of a request; a heartbeat has its wait besides
	maxAnswer    = 256 << 20        // bytes of a configuration, uncompressed
	maxSmall     = 1 << 20          // bytes of any other answer
	maxDelta     = 32 << 20         // bytes of a delta; Core sends the whole configuration well before
	// An HTTP/2 connection that is silent for pingAfter gets a ping. It is longer than a heartbeat is held (25
	// seconds): a ping comes only where a heartbeat is not answered in time, and costs Core nothing else. The kernel
	// finds a host that is dead too (deadAfter), but speaks to the next host that ends TCP alone: a balancer of layer
	// 4, or the proxy of HTTPS_PROXY, is alive where the Core behind it is dead. A node whose Core has died without a
	// word speaks to another instance before it counts as offline, after 90 seconds (corestore.OfflineAfter).
	pingAfter   = 35 * time.Second
	pingProxied = 20 * time.Second
	pingWait    = 10 * time.Second // for the answer to a ping
	packFrom    = 1024             // bytes; compressing a smaller body gains nothing
	retries     = 2
	retryMin    = 500 * time.Millisecond
	retryMax    = 2 * time.Second
)

// Config says where Core is, and as which node the client asks.
type Config struct {
	CoreURL   string
	Pin       string        // hex SHA-256 of Core's certificate; empty to trust the system's authorities
	CAPEM     string        // further authorities, PEM; empty for none
	AuthKey   secret.Text   // empty for Register
	Boot      string        // sent as wire.HeaderNodeBoot; empty for none
	Machine   string        // sent as wire.HeaderNodeMachine; empty for none
	UserAgent func() string // called for each request, since an engine can get another version; may be nil
}

// Client calls Core's node routes. Its methods may be called by any goroutine.
type Client struct {
	base      *url.URL
	authKey   secret.Text
	headers   http.Header // of every request
	userAgent func() string
	http      *retryablehttp.Client
	skew      atomic.Int64 // nanoseconds; see Skew
	packs     atomic.Bool  // Core said that it takes bodies compressed with gzip
	hearing   sync.Mutex   // held while said is replaced
	said      atomic.Pointer[said]
}

// New makes a client, and sends nothing. It returns an error for an address, a pin or a
// certificate that cannot be read. log gets retries, at the debug level.
func New(cfg Config, log *slog.Logger) (*Client, error) {
	base, err := ParseURL(cfg.CoreURL)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := tlsConfig(cfg.Pin, cfg.CAPEM)
	if err != nil {
		return nil, err
	}
	silence := pingAfter
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: base}); err == nil && proxy != nil {
		silence = pingProxied
	}
	client := retryablehttp.NewClient()
	client.HTTPClient = &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         dialer().DialContext,
			TLSClientConfig:     tlsConfig,
			TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2:   true,
			DisableCompression:  true, // net/http knows gzip only; readBody knows zstd too
			IdleConnTimeout:     90 * time.Second,
			// Each request has another Idempotency-Key: Core would remember 4 KB of them, and need twice as much for it.
			HTTP2: &http.HTTP2Config{SendPingTimeout: silence, PingTimeout: pingWait, MaxEncoderHeaderTableSize: 1},
		},
		// To follow a redirect could lose the body of a POST, or send the key elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	client.Logger = nil
	client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = retries, retryMin, retryMax
	client.Backoff = retryablehttp.LinearJitterBackoff
	client.CheckRetry = checkRetry
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler
	client.RequestLogHook = func(_ retryablehttp.Logger, r *http.Request, attempt int) {
		if attempt > 0 {
			log.Debug("trying again", logkey.Route, r.Method+" "+r.URL.Path, logkey.Attempt, attempt)
		}
	}
	if cfg.UserAgent == nil {
		cfg.UserAgent = func() string { return "node-agent" }
	}
	headers := http.Header{}
	for name, value := range map[string]string{wire.HeaderNodeBoot: cfg.Boot, wire.HeaderNodeMachine: cfg.Machine} {
		if value != "" {
			headers.Set(name, value)
		}
	}
	return &Client{base: base, authKey: cfg.AuthKey, headers: headers, userAgent: cfg.UserAgent, http: client}, nil
}

// ParseURL parses Core's address, which may have a path.
func ParseURL(address string) (*url.URL, error) {
	base, err := url.Parse(strings.TrimRight(address, "/"))
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Host == "" {
		return nil, fmt.Errorf("read Core's address %q: want https://HOST[:PORT][/PATH]", secret.URL(address))
	}
	return base, nil
}

// checkRetry tries again after a broken connection, and after a 502 or 504, which a proxy sends.
// After a 503 or 429 the caller waits as long as Core's Retry-After says.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		return !isTLSError(err), err
	default:
		return resp.StatusCode == http.StatusBadGateway || resp.StatusCode == http.StatusGatewayTimeout, nil
	}
}

// Skew is this host's clock minus Core's, at the last answer that had a Date header.
func (c *Client) Skew() time.Duration { return time.Duration(c.skew.Load()) }

// Registered is what Core issued to a node.
type Registered struct {
	NodeID  string
	AuthKey secret.Text
	Core    wire.CoreIdentity // empty for a Core that does not say
}

// Register makes the node known. body is a wire.RegisterRequest as JSON; attempt is the
// Idempotency-Key, under which a lost answer can be had again.
func (c *Client) Register(ctx context.Context, attempt, body secret.Text) (Registered, error) {
	var answer wire.RegisterResponse
	header := http.Header{wire.HeaderIdempotencyKey: {attempt.Reveal()}}
	if err := c.post(ctx, wire.PathRegister, header, []byte(body.Reveal()), &answer); err != nil {
		return Registered{}, err
	}
	if answer.AuthKey == "" || answer.NodeID == "" {
		return Registered{}, fmt.Errorf("POST %s: %w (it has no authKey or no nodeId)", wire.PathRegister, ErrNotCore)
	}
	core, _ := c.Said()
	return Registered{NodeID: string(answer.NodeID), AuthKey: secret.Text(answer.AuthKey), Core: core}, nil
}

// Heartbeat tells Core that the node lives and which revision runs. key is the
// Idempotency-Key. Core may hold the answer for up to wait.
func (c *Client) Heartbeat(ctx context.Context, request wire.HeartbeatRequest, held, key string, wait time.Duration) (wire.HeartbeatResponse, error) {
	var answer wire.HeartbeatResponse
	body, err := json.Marshal(request)
	if err != nil {
		return answer, fmt.Errorf("encode heartbeat: %w", err)
	}
	header := http.Header{wire.HeaderIdempotencyKey: {key}}
	if held != "" {
		header.Set(wire.HeaderNodeConfig, held)
		header.Set(delta.HeaderAccept, delta.Manipulation)
	}
	if wait > 0 {
		header.Set(wire.HeaderPrefer, fmt.Sprintf("wait=%d", int(wait.Seconds())))
	}
	ctx, cancel := context.WithTimeout(ctx, requestLimit+wait)
	defer cancel()
	err = c.post(ctx, wire.PathHeartbeat, header, body, &answer)
	return answer, err
}

// Config fetches the configuration, a NodeConfig as JSON. changed is false where it is still the
// one with that etag; body is nil then. An empty etag fetches it in any case.
func (c *Client) Config(ctx context.Context, etag string) (body []byte, newETag string, changed bool, err error) {
	u, err := c.fetch(ctx, etag, false)
	return u.Body, u.ETag, u.Changed, err
}

// Update is an answer of Core's to the question for the configuration.
type Update struct {
	Body    []byte // nil where Changed is false
	ETag    string
	Changed bool // it is not the configuration with the ETag of the question
	// Delta tells that Body is a delta of that configuration (package coreclient/wire/delta).
	Delta bool
}

// Update is Config that tells Core that a delta is welcome too. A Core that does not know deltas
// answers as to Config.
func (c *Client) Update(ctx context.Context, etag string) (Update, error) {
	return c.fetch(ctx, etag, true)
}

func (c *Client) fetch(ctx context.Context, etag string, deltas bool) (Update, error) {
	header := http.Header{"Accept-Encoding": {"zstd, gzip"}}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	if deltas {
		header.Set(delta.HeaderAccept, delta.Manipulation)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*requestLimit)
	defer cancel()
	resp, err := c.send(ctx, http.MethodGet, wire.PathConfig, header, nil)
	if err != nil {
		return Update{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return Update{ETag: etag}, nil
	}
	const route = http.MethodGet + " " + wire.PathConfig
	isDelta, limit := resp.StatusCode == http.StatusIMUsed, int64(maxAnswer)
	if isDelta {
		limit = maxDelta
	}
	body, err := readAnswer(route, resp, limit)
	switch {
	case err != nil:
	case !isObject(body):
		err = notCore(route, resp, body, "there is no configuration in it")
	case isDelta && (!deltas || resp.Header.Get(delta.HeaderUsed) != delta.Manipulation || resp.Header.Get(delta.HeaderBase) != etag):
		err = notCore(route, resp, body, "nobody asked for such a delta")
	}
	switch {
	case err != nil && isDelta:
		return Update{}, fmt.Errorf("%w: %w", ErrDelta, err)
	case err != nil:
		return Update{}, err
	}
	return Update{Body: body, ETag: resp.Header.Get("ETag"), Changed: true, Delta: isDelta}, nil
}

// Post sends a body, which is JSON, under the given Idempotency-Key. ClassOf says what its error
// means for the body.
func (c *Client) Post(ctx context.Context, path, key string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	return c.post(ctx, path, http.Header{wire.HeaderIdempotencyKey: {key}}, body, nil)
}

// post sends a body, and returns nil where the answer is a success, see readAnswer. It decodes the
// body of the answer unless answer is nil; without a body, answer stays as it is.
func (c *Client) post(ctx context.Context, path string, header http.Header, body []byte, answer any) error {
	header.Set("Content-Type", "application/json")
	resp, err := c.send(ctx, http.MethodPost, path, header, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	route := http.MethodPost + " " + path
	data, err := readAnswer(route, resp, maxSmall)
	if err != nil || answer == nil || len(data) == 0 {
		return err
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return notCore(route, resp, data, "the body is not the JSON of this route")
	}
	return nil
}

// send sends a request. It returns a response with status 2xx or 304, whose body the caller
// closes, or an error.
func (c *Client) send(ctx context.Context, method, path string, header http.Header, body []byte) (*http.Response, error) {
	route := method + " " + path
	if len(body) >= packFrom && c.packs.Load() {
		body = pack(body)
		header.Set("Content-Encoding", "gzip")
	}
	request, err := retryablehttp.NewRequestWithContext(ctx, method, c.base.JoinPath(path).String(), body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", route, err)
	}
	for name, values := range header {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	if c.authKey != "" {
		request.Header.Set(wire.HeaderAuthKey, c.authKey.Reveal())
	}
	maps.Copy(request.Header, c.headers)
	request.Header.Set("User-Agent", c.userAgent())
	resp, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", route, explain(err))
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.skew.Store(int64(time.Since(date).Truncate(time.Second)))
	}
	// In an answer, Accept-Encoding names encodings for request bodies (RFC 9110, 12.5.3).
	c.hear(path, resp.Header)
	c.packs.Store(strings.Contains(resp.Header.Get("Accept-Encoding"), "gzip"))
	switch status := resp.StatusCode; {
	case status >= 200 && status < 300, status == http.StatusNotModified && header.Get("If-None-Match") != "":
		return resp, nil
	case status < 400:
		defer resp.Body.Close()
		reason := "it is no success"
		if to := resp.Header.Get("Location"); to != "" {
			reason = fmt.Sprintf("it is a redirect to %q", printable(to, maxDetail))
		}
		return nil, notCore(route, resp, nil, reason)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxSmall))
	code, detail := problem(data, resp.Header.Get("Content-Type"))
	return nil, &Error{
		Route: route, Status: resp.StatusCode, Code: code, Detail: detail,
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
}

// pack compresses a body with gzip.
func pack(body []byte) []byte {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(body) // a write into memory never fails
	_ = w.Close()
	return packed.Bytes()
}

// explain adds to a network error what an operator can do about it.
func explain(err error) error {
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case isDNS:
		return fmt.Errorf("find Core: %w; check the address and this host's DNS", dns)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"): // net/http has no type for it
		return errors.New("reach Core: it answers with plain HTTP; use http:// in the address, or give Core a certificate")
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("reach Core: %w", context.Canceled)
	case isTLSError(err):
		return fmt.Errorf("%w: %w; %s", ErrUntrusted, unwrapURL(err), tlsHint)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("reach Core: no answer in time: %w", unwrapURL(err))
	}
	return fmt.Errorf("reach Core: %w; is it running, and does a firewall let this host through?", unwrapURL(err))
}

// unwrapURL removes the message of url.Error, which repeats the whole address.
func unwrapURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}
