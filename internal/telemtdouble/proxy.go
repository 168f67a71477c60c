package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/internal/telegram"
)

const (
	watchPoll = 10 * time.Millisecond
	debounce  = 50 * time.Millisecond
)

// proxy is the running telemt.
type proxy struct {
	file   string
	faults faults
	began  time.Time

	mu       sync.Mutex
	config   config // the running configuration
	seen     []byte // the text of the file that was read last
	reloads  int    // edits and reloads that changed something
	lost     int    // edits that were ignored (faults.loseEdits)
	stats    *stats // of the generation that serves
	sessions map[*session]struct{}
	recent   map[string]map[string]time.Time // by user and address: when a session began last

	reloadID    int64
	reloadState string
	reloadError string
}

// stats are the counters of one generation. A reload makes another generation.
type stats struct {
	began time.Time
	users map[string]*counted
}

type counted struct{ up, down atomic.Uint64 }

// session is one client's stream to a data centre.
type session struct {
	user, ip       string
	stats          *stats
	client, centre net.Conn
}

func (s *session) end() {
	_ = s.client.Close()
	_ = s.centre.Close()
}

func newStats() *stats { return &stats{began: time.Now(), users: map[string]*counted{}} }

func newProxy(file string, c config, raw []byte, f faults) *proxy {
	return &proxy{file: file, faults: f, began: time.Now(), config: c, seen: raw, stats: newStats(), sessions: map[*session]struct{}{}}
}

func (p *proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		go p.serve(client)
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	known := p.config // as telemt, by the configuration at the time of the accept
	p.mu.Unlock()
	names := known.Access.names()
	secrets := make([][]byte, len(names))
	for i, name := range names {
		secrets[i] = known.Access.secret(name)
	}
	stream, which, err := telegram.Accept(client, secrets)
	if err != nil {
		_, _ = io.Copy(io.Discard, client) // a client with an unknown secret gets no answer
		return
	}
	address := known.DCOverrides["2"]
	if len(address) == 0 {
		return
	}
	dialed, err := net.Dial("tcp", address[0])
	if err != nil {
		return
	}
	defer dialed.Close()
	centre, err := telegram.Open(dialed, nil, 2)
	if err != nil {
		return
	}
	s := &session{user: names[which], ip: client.RemoteAddr().(*net.TCPAddr).IP.String(), client: client, centre: dialed}
	counts := p.admit(s)
	if counts == nil {
		return
	}
	defer p.leave(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(centre, counting{stream, &counts.up})
		s.end()
	}()
	_, _ = io.Copy(stream, counting{centre, &counts.down})
	s.end()
	<-done
}

// admit opens the session and returns the user's counters; nil where the user is disabled,
// has expired, or has as many sessions as it may.
func (p *proxy) admit(s *session) *counted {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.config.Access
	expires, err := time.Parse(time.RFC3339, a.Expirations[s.user])
	if !a.enabled(s.user) || err == nil && time.Now().After(expires) {
		logLine("WARN", "Disabled user rejected user=%s", s.user)
		return nil
	}
	if limit := a.MaxTCP[s.user]; limit > 0 && p.open(s.user) >= limit {
		return nil
	}
	if p.stats.users[s.user] == nil {
		p.stats.users[s.user] = &counted{}
	}
	s.stats = p.stats
	p.sessions[s] = struct{}{}
	if p.recent == nil {
		p.recent = map[string]map[string]time.Time{}
	}
	if p.recent[s.user] == nil {
		p.recent[s.user] = map[string]time.Time{}
	}
	p.recent[s.user][s.ip] = time.Now()
	return p.stats.users[s.user]
}

// open returns how many sessions a user has in the serving generation. Call it with mu held.
func (p *proxy) open(user string) int {
	n := 0
	for s := range p.sessions {
		if s.user == user && s.stats == p.stats {
			n++
		}
	}
	return n
}

func (p *proxy) leave(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, s)
}

type counting struct {
	io.Reader
	n *atomic.Uint64
}

func (c counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(uint64(n))
	return n, err
}

// watch applies each edit of the file, debounce after it was made.
func (p *proxy) watch() {
	for {
		time.Sleep(watchPoll)
		raw, err := os.ReadFile(p.file)
		p.mu.Lock()
		same := bytes.Equal(raw, p.seen)
		p.mu.Unlock()
		if err == nil && !same {
			time.Sleep(debounce)
			p.applyEdit()
		}
	}
}

func (p *proxy) applyEdit() {
	c, raw, err := load(p.file)
	if err == nil && p.faults.refuseEdits {
		err = refusal("Config error: the double takes no edits")
	}
	if is := new(fatal); errors.As(err, is) {
		fmt.Fprintln(os.Stderr, "[telemt] Error:", err)
		os.Exit(1)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = raw
	if p.lost < p.faults.loseEdits {
		p.lost++
		return
	}
	if err != nil {
		logLine("ERROR", "config reload: failed to parse %q: %v", p.file, err)
		return
	}
	if err := c.validate(); err != nil {
		logLine("ERROR", "config reload: validation failed: %v; keeping old config", err)
		return
	}
	before := p.config.Access
	if reflect.DeepEqual(before, c.Access) {
		return
	}
	p.reloads++
	p.config.Access = c.Access
	for s := range p.sessions { // of the serving generation; one that drains keeps its sessions
		if s.stats == p.stats && before.enabled(s.user) && !c.Access.enabled(s.user) {
			s.end()
		}
	}
	for _, name := range c.Access.names() {
		if _, was := before.Users[name]; !was { // telemt logs a new user's secret unless its configuration forbids it
			logLine("INFO", "config reload: users added: [%s] secret=%s", name, c.Access.Users[name])
		}
	}
}

var errReloading = errors.New("a reload is in progress")

// reload makes another generation, whose counters begin at zero, and ends the sessions of the
// old one after drain. It returns the reload's id.
func (p *proxy) reload(drain time.Duration) (int64, error) {
	c, raw, err := load(p.file)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.reloadState == "draining":
		return 0, errReloading
	case err != nil:
		return 0, err
	}
	p.reloadID++
	if p.faults.failReload {
		p.reloadState, p.reloadError = "failed", "Proxy error: TLS-front profiles are not ready for domains: "+c.Censorship.TLSDomain
		return p.reloadID, nil
	}
	c.Server = p.config.Server // a reload does not change the addresses
	p.config, p.seen = c, raw
	p.reloads++
	old := p.stats
	p.stats, p.reloadState, p.reloadError = newStats(), "draining", ""
	time.AfterFunc(drain, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for s := range p.sessions {
			if s.stats == old {
				s.end()
			}
		}
		p.reloadState = "succeeded"
	})
	return p.reloadID, nil
}

// active returns the addresses of each user's sessions in the serving generation.
func (p *proxy) active() map[string][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	active := map[string][]string{}
	for s := range p.sessions {
		if s.stats == p.stats && !slices.Contains(active[s.user], s.ip) {
			active[s.user] = append(active[s.user], s.ip)
		}
	}
	return active
}
