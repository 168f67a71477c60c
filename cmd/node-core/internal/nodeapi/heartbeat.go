package nodeapi

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
)

// maxWait bounds how long a heartbeat is held.
const maxWait = time.Minute

// heartbeat stores that the node is alive. It answers where the node has to fetch its configuration; else it
// returns a waiting.
func (a *API) heartbeat(r *request) (any, error) {
	var body wire.HeartbeatRequest
	if err := readBody(r, &body, maxSmallBody); err != nil {
		return nil, err
	}
	if body.IP != "" && !isIP(body.IP) {
		return nil, problem.InField("ip", "it is not an IP address")
	}
	if body.Revision != nil && *body.Revision < 0 {
		return nil, problem.InField("revision", "want 0 or more")
	}
	changed := a.hub.Next(r.nodeID)
	a.rendered.Heard(r.nodeID)
	from := corestore.Daemon{Boot: idOf(r.Header.Get(wire.HeaderNodeBoot)), Machine: idOf(r.Header.Get(wire.HeaderNodeMachine)), Agent: agentOf(r.UserAgent())}
	beat, err := a.beat(r.Context(), r.nodeID, body, from)
	if err != nil {
		return nil, err
	}
	a.hub.Reported(r.nodeID)
	a.tellIdentities(r, beat, from)
	runs := body.Revision != nil && *body.Revision == beat.Revision
	document := strongETag(r.Header.Get(wire.HeaderNodeConfig))
	holds, err := a.holdsNewest(r, document, beat.ETag, runs)
	if err != nil {
		return nil, err
	}
	if !takesDelta(r) {
		document = ""
	}
	if !holds {
		return a.needSync(r, document), nil
	}
	return waiting{changed: changed, ended: a.holds.end(preferredWait(r.Header.Get(wire.HeaderPrefer))), document: document, held: !runs}, nil
}

// waiting is a heartbeat that is stored, and whose node has nothing to fetch.
type waiting struct {
	changed, ended <-chan struct{} // of the hub, and of holds
	document       string          // the ETag of the one that the node has; empty where it takes no delta
	held           bool            // as in the answer
}

// hold answers a heartbeat that begin has stored. Where it returns a waiting, it waits for a change, for as long as
// the request's Prefer header says. Ten thousand nodes wait here: what is not needed any more is dropped.
func (a *API) hold(begin func(*request) (any, error)) func(*request) (any, error) {
	return func(r *request) (any, error) {
		var value any
		var err error
		onOwnStack(func() { value, err = begin(r) })
		w, waits := value.(waiting)
		if err != nil || !waits {
			return value, err
		}
		r.Header = nil
		select {
		case <-w.changed:
			a.announce(r.w) // that may be what has changed
			return a.needSync(r, w.document), nil
		case <-w.ended:
		case <-a.stopping.Done():
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		return wire.HeartbeatResponse{OK: true, Held: w.held}, nil
	}
}

// onOwnStack calls f in a goroutine of its own and waits for it. What f calls makes a stack large, and
// the stack of a goroutine that then waits stays so: the collector halves it only where three quarters of it are free.
func onOwnStack(f func()) {
	done := make(chan struct{})
	var panicked any
	go func() {
		defer close(done)
		defer func() {
			switch p := recover(); p {
			case nil, http.ErrAbortHandler:
				panicked = p
			default:
				panicked = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
			}
		}()
		f()
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
}

// beat stores what a heartbeat says.
func (a *API) beat(ctx context.Context, nodeID int64, body wire.HeartbeatRequest, from corestore.Daemon) (corestore.Beat, error) {
	if beat, quiet, err := a.store.QuietBeat(ctx, nodeID, body, from); err != nil || quiet {
		return beat, err
	}
	if err := a.noteAgent(ctx, nodeID, from.Agent); err != nil {
		return corestore.Beat{}, err
	}
	return a.store.Heartbeat(ctx, nodeID, body, from)
}

// maxHeartbeatDelta bounds the delta in the answer to a heartbeat, in bytes. An agent reads a megabyte
// there.
const maxHeartbeatDelta = 64 << 10

// needSync is the answer to a heartbeat of a node that has something to fetch, with what it would
// fetch where that is small. held is the ETag of the document that it has, and empty where it takes no delta.
func (a *API) needSync(r *request, held string) wire.HeartbeatResponse {
	answer := wire.HeartbeatResponse{OK: true, NeedSync: true}
	if held == "" {
		return answer
	}
	_, change, err := a.rendered.Delta(r.Context(), r.nodeID, held)
	switch {
	case err != nil: // the node asks for its configuration, and that is answered with the error
		a.log.Warn("make the change of a node's configuration", logkey.Node, r.nodeID, logkey.Error, err)
	case change != nil:
		if body := change.Append(nil); len(body) <= maxHeartbeatDelta {
			answer.Delta = body
		}
	}
	return answer
}

// announce adds to an answer the address that nodes are to try too.
func (a *API) announce(w http.ResponseWriter) {
	if url := a.store.Identity().NextURL; url != "" {
		w.Header().Set(wire.HeaderCoreURL, url)
	} else {
		w.Header().Del(wire.HeaderCoreURL)
	}
}

// noteAgent stores the versions that the node says it has. Where another version of Xray takes
// inbounds that are left out of the node's configuration, or no longer takes others, the
// configuration is another one, and gets another revision.
func (a *API) noteAgent(ctx context.Context, nodeID int64, agent string) error {
	node, err := a.store.NodeByID(ctx, nodeID)
	if err != nil || node.Agent == agent {
		return err
	}
	protocols, err := a.store.Protocols(ctx, nodeID)
	if err != nil {
		return err
	}
	next := node
	next.Agent = agent
	differs := slices.ContainsFunc(protocols, func(p corestore.Protocol) bool {
		return nodeconfig.LeftOut(node, p) != nodeconfig.LeftOut(next, p)
	})
	differs = differs || nodeconfig.KnowsFinalRules(node) != nodeconfig.KnowsFinalRules(next)
	return a.store.NoteAgent(ctx, nodeID, agent, differs)
}

// tellIdentities logs what a heartbeat has shown of the database and of the node's daemons. It
// adds to the answer what the node is to know of this Core: the address to try too, and the
// node's next key, which only an agent takes that names its daemon.
func (a *API) tellIdentities(r *request, beat corestore.Beat, from corestore.Daemon) {
	if beat.Restored {
		a.identify(r.w) // the epoch is another one now
		a.log.Warn("a node names a configuration that this Core never made: the database was restored from a copy; nodes get the restored configuration", logkey.Node, r.nodeID)
	}
	if beat.TwoDaemons {
		a.log.Warn("two daemons use one node's key: is a copy of the node's disk in use? Register the copy anew with 'node-core node add' and 'node-agent register --force'", logkey.Node, r.nodeID, logkey.From, r.RemoteAddr)
	}
	a.announce(r.w)
	if beat.NextKey != "" && from.Boot != "" {
		r.w.Header().Set(wire.HeaderNextKey, beat.NextKey)
	}
}

// maxID is how many bytes of a daemon's or a machine's id are kept.
const maxID = 64

// idOf returns an id that a node sent as it is stored, see agentOf.
func idOf(header string) string {
	id := agentOf(header)
	return id[:min(len(id), maxID)]
}

// holdsNewest reports whether the node holds the newest document. held is the ETag of the one that it has, and
// etag that of the newest one, empty where none was built yet. runs says that the node runs the newest revision, which
// counts where the node names no document.
func (a *API) holdsNewest(r *request, held, etag string, runs bool) (bool, error) {
	if held == "" {
		return runs, nil
	}
	if etag == "" {
		newest, err := a.rendered.Document(r.Context(), r.nodeID)
		if err != nil {
			return false, err
		}
		etag = newest.ETag
	}
	return held == etag, nil
}

// strongETag removes the mark of a weak ETag. A proxy that compresses an answer may add it.
func strongETag(tag string) string { return strings.TrimPrefix(strings.TrimSpace(tag), "W/") }

// maxAgent is how many bytes of a User-Agent are stored.
const maxAgent = 200

// agentOf returns a User-Agent as it is stored and shown: short, and without characters that
// a terminal would not show as they are.
func agentOf(header string) string {
	printable := strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, header)
	return printable[:min(len(printable), maxAgent)]
}

// preferredWait reads "wait=N", in seconds, from a Prefer header (RFC 7240 section 4.3). It is
// at most maxWait, and 0 without one.
func preferredWait(header string) time.Duration {
	for preference := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
		if seconds, err := strconv.Atoi(strings.Trim(value, `"`)); err == nil && strings.EqualFold(name, "wait") && seconds > 0 {
			return min(time.Duration(seconds)*time.Second, maxWait)
		}
	}
	return 0
}
