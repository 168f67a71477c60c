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
	// Timeout limits one call. telemt closes a connection after 15 s.
	Timeout = 5 * time.Second
	// maxAnswer limits an answer, in bytes. 4,096 users with their links take about
	// 3 MiB.
	maxAnswer = 32 << 20
)

// Endpoints are the addresses of one telemt, and its password.
type Endpoints struct {
	API           string // host:port of the control API
	Metrics       string // host:port of the metrics
	Authorization string // secret; the control API's Authorization header
}

// Client calls the control API and reads the metrics of one telemt. Several goroutines
// may use it at the same time.
type Client struct {
	endpoints Endpoints
	http      *http.Client
}

// New makes a Client. It sends nothing yet.
func New(endpoints Endpoints) *Client {
	// Each call has a connection of its own: telemt closes a connection 15 s after it
	// was opened, even in the middle of a call.
	return &Client{endpoints: endpoints, http: &http.Client{Timeout: Timeout, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// Error means that telemt answered a call, and the answer is that it failed.
type Error struct {
	Status  int    `json:"-"` // of HTTP
	Code    string `json:"code"`
	Message string `json:"message"` // telemt's own text; it can contain secrets
}

func (e *Error) Error() string { return e.Message }

// call sends in as JSON unless it is nil, and decodes the data of telemt's answer.
func (c *Client) call(ctx context.Context, method, path string, in, data any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the body of telemt's %s: %w", path, err)
		}
		body = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.endpoints.API+path, body)
	if err != nil {
		return fmt.Errorf("build the request for telemt's %s: %w", path, err)
	}
	request.Header.Set("Authorization", c.endpoints.Authorization)
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("call telemt's API: %w", err)
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

// ReloadCount returns how often telemt has applied a changed configuration file since it
// started. An edit that it rejected does not count, nor one that changed nothing which
// telemt can change while it runs.
func (c *Client) ReloadCount(ctx context.Context) (int, error) {
	var info struct {
		Reloads int `json:"config_reload_count"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/system/info", nil, &info)
	return info.Reloads, err
}

// User is a user in telemt's configuration file.
type User struct {
	Name      string `json:"username"`
	Enabled   bool   `json:"enabled"`
	InRuntime bool   `json:"in_runtime"` // telemt has applied the file's entry
	// Recent has the addresses from which sessions began within telemt's window, 30 s.
	Recent []netip.Addr `json:"recent_unique_ips_list"`
}

// Users returns the users in telemt's configuration file, by name. telemt reads the file
// for this call. If it can't load the file, the error is an *Error that says why.
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

// ActiveIPs returns the addresses from which each user has open sessions now, by user
// name.
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

// Health returns why telemt can't forward traffic to Telegram now, or "" if it can.
// health/ready alone is not enough: it says "ready" for minutes while no Telegram data
// centre is reachable. telemt checks its upstreams every 30 s, which shows it sooner.
func (c *Client) Health(ctx context.Context) (problem string, err error) {
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
		answer, ok := errors.AsType[*Error](err)
		if ok && answer.Status == http.StatusNotFound { // a release without this call
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
	return "no Telegram data centre is reachable through any upstream", nil
}

// Phase is the state of a reload.
type Phase string

// The phases in which a reload is decided. There are others, in which it is not.
const (
	PhaseDraining   Phase = "draining" // the new generation serves; the old one has open sessions
	PhaseSucceeded  Phase = "succeeded"
	PhaseRolledBack Phase = "rolled_back"
	PhaseFailed     Phase = "failed"
)

// Reload asks telemt to load its whole file as a new generation. The sessions of the old
// generation go on for the time of drain, which is limited to between 1 s and 1 h. The
// ID is for ReloadPhase.
func (c *Client) Reload(ctx context.Context, drain time.Duration) (id int64, err error) {
	var accepted struct {
		ID int64 `json:"reload_id"`
	}
	err = c.call(ctx, http.MethodPost, "/v1/system/reload", map[string]any{
		"mode": "drain", "timeout_secs": int(min(max(drain, time.Second), time.Hour).Seconds()), "failure_policy": "rollback",
	}, &accepted)
	return accepted.ID, err
}

// ReloadPhase returns the state of a reload. If it has failed, reason has telemt's text.
func (c *Client) ReloadPhase(ctx context.Context, id int64) (phase Phase, reason string, err error) {
	var status struct {
		State Phase  `json:"state"`
		Error string `json:"error"`
	}
	err = c.call(ctx, http.MethodGet, fmt.Sprintf("/v1/system/reload/%d", id), nil, &status)
	return status.State, status.Error, err
}

// Metrics reads the metrics once.
func (c *Client) Metrics(ctx context.Context) (Sample, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.endpoints.Metrics+"/metrics", nil)
	if err != nil {
		return Sample{}, fmt.Errorf("build the request for telemt's metrics: %w", err)
	}
	asked := time.Now()
	response, err := c.http.Do(request)
	if err != nil {
		return Sample{}, fmt.Errorf("read telemt's metrics: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return Sample{}, fmt.Errorf("read telemt's metrics: %s", response.Status)
	}
	return parseMetrics(io.LimitReader(response.Body, maxAnswer), asked)
}
