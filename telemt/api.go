package telemt

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
	// apiTimeout bounds one call; telemt itself ends a connection after 15 s.
	apiTimeout = 5 * time.Second
	// maxAnswer bounds an answer, in bytes; 4,096 users with their links are
	// about 3 MiB.
	maxAnswer = 32 << 20
)

// api is one telemt's control API and metrics, as release 3.4.25 documents them
// in docs/Architecture/API/API.md.
type api struct {
	place Place
	http  *http.Client
}

func newAPI(place Place) *api {
	// No keep-alive: telemt closes every connection after 15 s, in the middle of
	// a call too.
	return &api{place: place, http: &http.Client{Timeout: apiTimeout, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// apiError is telemt's refusal of a call, in its own words.
type apiError struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *apiError) Error() string { return e.Message }

// call sends in as JSON, where it is not nil, and reads the envelope's data.
func (a *api) call(ctx context.Context, method, path string, in, data any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode telemt call: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+a.place.APIAddr+path, body)
	if err != nil {
		return fmt.Errorf("make telemt call: %w", err)
	}
	request.Header.Set("Authorization", a.place.APISecret)
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := a.http.Do(request)
	if err != nil {
		return fmt.Errorf("ask telemt: %w", err)
	}
	defer response.Body.Close()
	var envelope struct {
		OK    bool            `json:"ok"`
		Data  json.RawMessage `json:"data"`
		Error *apiError       `json:"error"`
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

// reloads is how many times telemt has taken a changed configuration. What
// changes nothing that it can change live is not counted, nor what it refused.
func (a *api) reloads(ctx context.Context) (int, error) {
	var info struct {
		Reloads int `json:"config_reload_count"`
	}
	err := a.call(ctx, http.MethodGet, "/v1/system/info", nil, &info)
	return info.Reloads, err
}

// user is one that telemt's file names; InRuntime tells whether telemt has taken
// it from there.
type user struct {
	Name        string `json:"username"`
	Enabled     bool   `json:"enabled"`
	InRuntime   bool   `json:"in_runtime"`
	Connections int    `json:"current_connections"`
}

// users reads the file as telemt does. Where telemt can't load it, the error is
// an *apiError that says why.
func (a *api) users(ctx context.Context) (map[string]user, error) {
	var list []user
	if err := a.call(ctx, http.MethodGet, "/v1/users", nil, &list); err != nil {
		return nil, err
	}
	byName := make(map[string]user, len(list))
	for _, u := range list {
		byName[u.Name] = u
	}
	return byName, nil
}

// activeIPs are the addresses from which users have sessions open now.
func (a *api) activeIPs(ctx context.Context) (map[string][]netip.Addr, error) {
	var list []struct {
		Username string       `json:"username"`
		Active   []netip.Addr `json:"active_ips"`
	}
	if err := a.call(ctx, http.MethodGet, "/v1/stats/users/active-ips", nil, &list); err != nil {
		return nil, err
	}
	active := make(map[string][]netip.Addr, len(list))
	for _, u := range list {
		active[u.Username] = u.Active
	}
	return active, nil
}

// trouble tells why telemt can't pass traffic on now, empty where it can.
// health/ready alone says "ready" for minutes with no Telegram centre reachable:
// the upstreams' own checks, every 30 s, tell it sooner.
func (a *api) trouble(ctx context.Context) (string, error) {
	var ready struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason"`
	}
	if err := a.call(ctx, http.MethodGet, "/v1/health/ready", nil, &ready); err != nil {
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
	if err := a.call(ctx, http.MethodGet, "/v1/runtime/upstream-quality", nil, &quality); err != nil {
		refusal, is := errors.AsType[*apiError](err)
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

// reloadPhase is where a reload of the whole configuration stands.
type reloadPhase string

const (
	phaseDraining   reloadPhase = "draining" // the new generation serves
	phaseSucceeded  reloadPhase = "succeeded"
	phaseRolledBack reloadPhase = "rolled_back"
	phaseFailed     reloadPhase = "failed"
)

// reload makes telemt load its file anew as another generation, while the old
// one's sessions go on for the drain's time at most.
func (a *api) reload(ctx context.Context, drain time.Duration) (id int64, err error) {
	var accepted struct {
		ID int64 `json:"reload_id"`
	}
	err = a.call(ctx, http.MethodPost, "/v1/system/reload", map[string]any{
		"mode": "drain", "timeout_secs": int(min(max(drain, time.Second), time.Hour).Seconds()), "failure_policy": "rollback",
	}, &accepted)
	return accepted.ID, err
}

// reloaded tells where a reload stands; words say why it failed.
func (a *api) reloaded(ctx context.Context, id int64) (phase reloadPhase, words string, err error) {
	var status struct {
		State reloadPhase `json:"state"`
		Error string      `json:"error"`
	}
	err = a.call(ctx, http.MethodGet, fmt.Sprintf("/v1/system/reload/%d", id), nil, &status)
	return status.State, status.Error, err
}

// metrics scrapes the counters.
func (a *api) metrics(ctx context.Context) (sample, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.place.MetricsAddr+"/metrics", nil)
	if err != nil {
		return sample{}, fmt.Errorf("make telemt scrape: %w", err)
	}
	asked := time.Now()
	response, err := a.http.Do(request)
	if err != nil {
		return sample{}, fmt.Errorf("scrape telemt: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return sample{}, fmt.Errorf("scrape telemt: %s", response.Status)
	}
	return parseMetrics(io.LimitReader(response.Body, maxAnswer), asked)
}
