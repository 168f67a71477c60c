package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"
)

const (
	// Timeout bounds one call; telemt itself ends a connection after 15 s.
	Timeout = 5 * time.Second
	// maxAnswer bounds an answer, in bytes; 4,096 users with their links are
	// about 3 MiB.
	maxAnswer = 32 << 20
)

// Endpoints are where one telemt answers.
type Endpoints struct {
	API           string // host:port of the control API
	Metrics       string // host:port of the metrics
	Authorization string // secret; the control API's Authorization header
}

// Client is one telemt's control API and metrics, as release 3.4.25 documents them
// in docs/Architecture/API/API.md.
type Client struct {
	at   Endpoints
	http *http.Client
}

// New makes a Client; it asks nothing yet.
func New(at Endpoints) *Client {
	// No keep-alive: telemt closes every connection after 15 s, in the middle of
	// a call too.
	return &Client{at: at, http: &http.Client{Timeout: Timeout, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// Error is telemt's refusal of a call, in its own words.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// call sends in as JSON, where it is not nil, and reads the envelope's data.
func (c *Client) call(ctx context.Context, method, path string, in, data any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode telemt call: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.at.API+path, body)
	if err != nil {
		return fmt.Errorf("make telemt call: %w", err)
	}
	request.Header.Set("Authorization", c.at.Authorization)
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("ask telemt: %w", err)
	}
	defer response.Body.Close()
	var envelope struct {
		OK    bool            `json:"ok"`
		Data  json.RawMessage `json:"data"`
		Error *Error          `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&envelope); err != nil {
		return fmt.Errorf("read telemt's answer to %s (%s): %w", path, response.Status, err)
	}
	switch {
	case envelope.Error != nil:
		envelope.Error.Status = response.StatusCode
		return envelope.Error
	case !envelope.OK:
		return fmt.Errorf("read telemt's answer to %s: %s without an error", path, response.Status)
	}
	if err := json.Unmarshal(envelope.Data, data); err != nil {
		return fmt.Errorf("read telemt's answer to %s: %w", path, err)
	}
	return nil
}

// ReloadCount is how many times telemt has taken a changed configuration. What
// changes nothing that it can change live is not counted, nor what it refused.
func (c *Client) ReloadCount(ctx context.Context) (int, error) {
	var info struct {
		Reloads int `json:"config_reload_count"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/system/info", nil, &info)
	return info.Reloads, err
}

// User is one that telemt's file names; InRuntime tells whether telemt has taken
// it from there.
type User struct {
	Name        string `json:"username"`
	Enabled     bool   `json:"enabled"`
	InRuntime   bool   `json:"in_runtime"`
	Connections int    `json:"current_connections"`
}

// Users reads the file as telemt does. Where telemt can't load it, the error is
// an *Error that says why.
func (c *Client) Users(ctx context.Context) (map[string]User, error) {
	var list []User
	if err := c.call(ctx, http.MethodGet, "/v1/users", nil, &list); err != nil {
		return nil, err
	}
	byName := make(map[string]User, len(list))
	for _, u := range list {
		byName[u.Name] = u
	}
	return byName, nil
}

// ActiveIPs are the addresses from which users have sessions open now.
func (c *Client) ActiveIPs(ctx context.Context) (map[string][]netip.Addr, error) {
	var list []struct {
		Username string       `json:"username"`
		Active   []netip.Addr `json:"active_ips"`
	}
	if err := c.call(ctx, http.MethodGet, "/v1/stats/users/active-ips", nil, &list); err != nil {
		return nil, err
	}
	active := make(map[string][]netip.Addr, len(list))
	for _, u := range list {
		active[u.Username] = u.Active
	}
	return active, nil
}

// Health tells why telemt can't pass traffic on now, empty where it can.
// health/ready alone says "ready" for minutes with no Telegram centre reachable:
// the upstreams' own checks, every 30 s, tell it sooner.
func (c *Client) Health(ctx context.Context) (string, error) {
	var ready struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason"`
	}
	if err := c.call(ctx, http.MethodGet, "/v1/health/ready", nil, &ready); err != nil {
		return "", err
	}
	if !ready.Ready {
		return "telemt is not ready: " + ready.Reason, nil
	}
	var quality struct {
		Upstreams []struct {
			Healthy bool `json:"healthy"`
			Fails   int  `json:"fails"`
		} `json:"upstreams"`
	}
	if err := c.call(ctx, http.MethodGet, "/v1/runtime/upstream-quality", nil, &quality); err != nil {
		refusal, is := errors.AsType[*Error](err)
		if is && refusal.Status == http.StatusNotFound { // an older release
			return "", nil
		}
		return "", err
	}
	for _, u := range quality.Upstreams {
		if u.Healthy && u.Fails == 0 {
			return "", nil
		}
	}
	if len(quality.Upstreams) == 0 {
		return "", nil
	}
	return "no Telegram centre is reachable through any upstream", nil
}

// Phase is where a reload of the whole configuration stands.
type Phase string

// The phases of a reload that are told apart.
const (
	PhaseDraining   Phase = "draining" // the new generation serves
	PhaseSucceeded  Phase = "succeeded"
	PhaseRolledBack Phase = "rolled_back"
	PhaseFailed     Phase = "failed"
)

// Reload makes telemt load its file anew as another generation, while the old
// one's sessions go on for the drain's time at most.
func (c *Client) Reload(ctx context.Context, drain time.Duration) (id int64, err error) {
	var accepted struct {
		ID int64 `json:"reload_id"`
	}
	err = c.call(ctx, http.MethodPost, "/v1/system/reload", map[string]any{
		"mode": "drain", "timeout_secs": int(min(max(drain, time.Second), time.Hour).Seconds()), "failure_policy": "rollback",
	}, &accepted)
	return accepted.ID, err
}

// ReloadPhase tells where a reload stands; words say why it failed.
func (c *Client) ReloadPhase(ctx context.Context, id int64) (phase Phase, words string, err error) {
	var status struct {
		State Phase  `json:"state"`
		Error string `json:"error"`
	}
	err = c.call(ctx, http.MethodGet, fmt.Sprintf("/v1/system/reload/%d", id), nil, &status)
	return status.State, status.Error, err
}

// Metrics scrapes the counters.
func (c *Client) Metrics(ctx context.Context) (Sample, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.at.Metrics+"/metrics", nil)
	if err != nil {
		return Sample{}, fmt.Errorf("make telemt scrape: %w", err)
	}
	asked := time.Now()
	response, err := c.http.Do(request)
	if err != nil {
		return Sample{}, fmt.Errorf("scrape telemt: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return Sample{}, fmt.Errorf("scrape telemt: %s", response.Status)
	}
	return parseMetrics(io.LimitReader(response.Body, maxAnswer), asked)
}
