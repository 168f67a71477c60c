package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// api returns the handler of the routes of telemt's API that the node calls.
func (p *proxy) api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/system/info", p.info)
	mux.HandleFunc("GET /v1/users", p.users)
	mux.HandleFunc("GET /v1/stats/users/active-ips", p.activeIPs)
	mux.HandleFunc("GET /v1/health/ready", p.ready)
	mux.HandleFunc("GET /v1/runtime/upstream-quality", p.quality)
	mux.HandleFunc("POST /v1/system/reload", p.startReload)
	mux.HandleFunc("GET /v1/system/reload/{id}", p.showReload)
	own := p.config.Server.API
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(p.faults.apiDelay)
		if r.Header.Get("Authorization") != own.AuthHeader {
			fail(w, http.StatusUnauthorized, "unauthorized", "Missing or invalid Authorization header")
			return
		}
		if r.Method != http.MethodGet && own.ReadOnly {
			fail(w, http.StatusForbidden, "read_only", "API runs in read-only mode")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (p *proxy) answer(w http.ResponseWriter, code int, data any) {
	raw, _ := os.ReadFile(p.file)
	sum := sha256.Sum256(raw)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"ok": true, "data": data, "revision": hex.EncodeToString(sum[:])})
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"ok": false, "error": map[string]string{"code": code, "message": message}, "request_id": 1})
}

func (p *proxy) info(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer(w, http.StatusOK, map[string]any{
		"version": p.faults.version, "uptime_seconds": time.Since(p.began).Seconds(), "config_path": p.file, "config_reload_count": p.reloads,
	})
}

// users lists the users of the file, as telemt does. in_runtime says which of them the
// running configuration has.
func (p *proxy) users(w http.ResponseWriter, _ *http.Request) {
	c, _, err := load(p.file)
	if err != nil {
		fail(w, http.StatusInternalServerError, "internal_error", "failed to load config: "+err.Error())
		return
	}
	active := p.active()
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []map[string]any{}
	for _, name := range c.Access.names() {
		_, runs := p.config.Access.Users[name]
		list = append(list, map[string]any{
			"username": name, "enabled": c.Access.enabled(name), "in_runtime": runs,
			"current_connections": p.open(name), "active_unique_ips_list": active[name],
			"recent_unique_ips_list": p.recentIPs(name),
			"links":                  map[string]any{"secure": []string{"tg://proxy?secret=dd" + c.Access.Users[name]}},
		})
	}
	p.answer(w, http.StatusOK, list)
}

// recentIPs are the addresses from which a user's sessions began in the last 30 seconds. Call it
// with mu held.
func (p *proxy) recentIPs(name string) []string {
	list := []string{}
	for ip, began := range p.recent[name] {
		if time.Since(began) < 30*time.Second {
			list = append(list, ip)
		}
	}
	return list
}

func (p *proxy) activeIPs(w http.ResponseWriter, _ *http.Request) {
	active := p.active()
	list := []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(active)) {
		list = append(list, map[string]any{"username": name, "active_ips": active[name]})
	}
	p.answer(w, http.StatusOK, list)
}

// ready always says that telemt is ready: telemt itself says so for minutes where it reaches
// no data centre.
func (p *proxy) ready(w http.ResponseWriter, _ *http.Request) {
	p.answer(w, http.StatusOK, map[string]any{"ready": true, "status": "ready", "admission_open": true, "healthy_upstreams": 1, "total_upstreams": 1})
}

func (p *proxy) quality(w http.ResponseWriter, _ *http.Request) {
	fails := 0
	if p.faults.unreachable {
		fails = 1
	}
	p.answer(w, http.StatusOK, map[string]any{"enabled": true, "upstreams": []any{map[string]any{"upstream_id": 0, "healthy": true, "fails": fails}}})
}

func (p *proxy) startReload(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Mode        string `json:"mode"`
		TimeoutSecs int    `json:"timeout_secs"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Mode != "drain" || body.TimeoutSecs < 1 {
		fail(w, http.StatusBadRequest, "bad_request", "Invalid JSON body")
		return
	}
	id, err := p.reload(time.Duration(body.TimeoutSecs) * time.Second)
	switch {
	case errors.Is(err, errReloading):
		fail(w, http.StatusConflict, "reload_in_progress", err.Error())
	case err != nil:
		fail(w, http.StatusBadRequest, "bad_request", "invalid runtime config: "+err.Error())
	default:
		p.answer(w, http.StatusAccepted, map[string]any{"reload_id": id, "state": "accepted", "mode": body.Mode})
	}
}

func (p *proxy) showReload(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, err := strconv.ParseInt(r.PathValue("id"), 10, 64); err != nil || id != p.reloadID {
		fail(w, http.StatusNotFound, "reload_not_found", "no such reload")
		return
	}
	status := map[string]any{"reload_id": p.reloadID, "state": p.reloadState}
	if p.reloadError != "" {
		status["error"] = p.reloadError
	}
	p.answer(w, http.StatusOK, status)
}

// metrics writes Prometheus text. From telemt 3.5 on the names of counters end in _total.
func (p *proxy) metrics(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	suffix := ""
	if strings.HasPrefix(p.faults.version, "3.5.") {
		suffix = "_total"
	}
	put := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	put("# TYPE telemt_uptime_seconds gauge\ntelemt_uptime_seconds %.1f\n", time.Since(p.stats.began).Seconds())
	put("# TYPE telemt_user_octets_from_client%s counter\n", suffix)
	for name, c := range p.stats.users {
		put("telemt_user_octets_from_client%s{user=%q} %d\n", suffix, name, c.up.Load())
	}
	put("# TYPE telemt_user_octets_to_client%s counter\n", suffix)
	for name, c := range p.stats.users {
		put("telemt_user_octets_to_client%s{user=%q} %d\n", suffix, name, c.down.Load())
	}
	put("# TYPE telemt_telemetry_user_series_users gauge\ntelemt_telemetry_user_series_users{family=\"stats\",status=\"suppressed\"} 0\n")
}
