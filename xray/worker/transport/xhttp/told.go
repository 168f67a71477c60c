package xhttp

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/xtls/xray-core/transport/internet"
)

// A worker that announces that it listens at an address says which requests could be its own (fieldServed).
// The other worker answers the same, and with the sessions that it has there: how many in fieldSessions, and a
// number for each in the body. No session begins there later but where nobody says whose it is. A worker of
// an older build says none of it.
const (
	fieldServed   = "Node-Agent-Served"   // JSON, of servedPaths
	fieldSessions = "Node-Agent-Sessions" // a number
)

// mostTold is of how many sessions one worker tells another, eight bytes each.
const mostTold = 1 << 20

// servedPaths are those of some listeners.
type servedPaths []servedPath

// servedPath tells the requests that a listener serves.
type servedPath struct{ Host, Path string }

func (p servedPath) serves(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, p.Path) && (p.Host == "" || internet.IsValidHTTPHost(r.Host, p.Host))
}

func (p servedPaths) serve(r *http.Request) bool {
	return slices.ContainsFunc(p, func(one servedPath) bool { return one.serves(r) })
}

// put says them in a header, and pathsIn reads them.
func (p servedPaths) put(header http.Header) {
	if text, err := json.Marshal(p); err == nil { // strings alone
		header.Set(fieldServed, strconv.QuoteToASCII(string(text)))
	}
}

func pathsIn(header http.Header) (paths servedPaths, said bool) {
	text, err := strconv.Unquote(header.Get(fieldServed))
	return paths, err == nil && json.Unmarshal([]byte(text), &paths) == nil
}

// lanePlace is another worker and an address.
type lanePlace struct {
	lane    int
	address string
}

// told is what a worker has said about an address when this one announced itself.
type told struct {
	paths    servedPaths
	sessions map[uint64]struct{} // by numberOf
}

// numberOf stands for a session's id. That another id has the same number costs its client a moment at most.
func numberOf(session string) uint64 {
	sum := fnv.New64a()
	_, _ = io.WriteString(sum, session)
	return sum.Sum64()
}

// tell returns the paths of the listeners of a place, and the numbers of its sessions. p may be nil.
func (p *sharedPlace) tell() (paths servedPaths, sessions []byte) {
	if p == nil {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	add := func(session string) {
		if len(sessions) < 8*mostTold {
			sessions = binary.BigEndian.AppendUint64(sessions, numberOf(session))
		}
	}
	for _, l := range p.listeners {
		paths = append(paths, l.served())
		l.sessions.Range(func(session, _ any) bool { add(session.(string)); return true })
	}
	for session := range p.claims {
		add(session)
	}
	return paths, sessions
}

// readTold reads what a worker has answered. It returns nil for one of an older build.
func readTold(answer *http.Response) (*told, error) {
	paths, said := pathsIn(answer.Header)
	if !said {
		return nil, nil
	}
	sessions, err := strconv.Atoi(answer.Header.Get(fieldSessions))
	if err != nil {
		return nil, err
	}
	t, body := &told{paths: paths, sessions: map[uint64]struct{}{}}, bufio.NewReader(answer.Body)
	for range min(sessions, mostTold) {
		var number [8]byte
		if _, err := io.ReadFull(body, number[:]); err != nil {
			return nil, err
		}
		t.sessions[binary.BigEndian.Uint64(number[:])] = struct{}{}
	}
	return t, nil
}

// hear notes what a worker has said. What it said before counts for nothing.
func (x *workers) hear(at lanePlace, says *told) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.told[at] = says; says == nil {
		delete(x.told, at)
	}
}

// forget is called where says is heard no longer.
func (x *workers) forget(at lanePlace, says *told) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.told[at] == says {
		delete(x.told, at)
	}
}

// mayHave reports whether a request could be of a session that a worker has.
func (x *workers) mayHave(lane int, address string, r *http.Request) bool {
	x.mu.Lock()
	what := x.told[lanePlace{lane, address}]
	x.mu.Unlock()
	return what == nil || what.paths.serve(r)
}

// mayServe reports whether a worker that listens at an address since this one did could serve a request.
func (x *workers) mayServe(lane int, address string, r *http.Request) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	paths := x.serving[lanePlace{lane, address}]
	return paths == nil || paths.serve(r)
}

// had reports whether another worker has said that it has a session.
func (x *workers) had(address, session string) bool {
	if x == nil || session == "" {
		return false
	}
	number := numberOf(session)
	x.mu.Lock()
	defer x.mu.Unlock()
	for at, what := range x.told {
		if _, has := what.sessions[number]; has && at.address == address {
			return true
		}
	}
	return false
}
