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
// number for each in the body. From then on a new session of that address begins in the other worker only where
// the first one does not take it: it has ended, has withdrawn, or does not answer. A worker of an older build
// says none of it.
const (
	fieldServed   = "Node-Agent-Served"   // JSON, of servedPaths
	fieldSessions = "Node-Agent-Sessions" // a number
)

// mostTold is of how many sessions of an address one worker tells another, eight bytes each. The other one keeps
// them as long as this one lives.
const mostTold = 1 << 16

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

// tell returns the paths of the listeners of some places, and the numbers of their sessions.
func tell(of []*sharedPlace) (paths servedPaths, sessions []byte) {
	var ids []string
	for _, p := range of {
		served, more := p.tell(mostTold - len(ids))
		paths, ids = append(paths, served...), append(ids, more...)
	}
	for _, id := range ids {
		sessions = binary.BigEndian.AppendUint64(sessions, numberOf(id))
	}
	return paths, sessions
}

// tell returns the paths of the listeners of a place, and the ids of its sessions, most of them at the most.
func (p *sharedPlace) tell(most int) (paths servedPaths, ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add := func(id string) (more bool) {
		if len(ids) < most {
			ids = append(ids, id)
		}
		return len(ids) < most
	}
	for _, l := range p.listeners {
		paths = append(paths, l.served())
		l.sessions.Range(func(id, _ any) bool { return add(id.(string)) })
	}
	for id := range p.claims {
		if !add(id) {
			break
		}
	}
	return paths, ids
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
