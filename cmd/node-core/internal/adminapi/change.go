package adminapi

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"nodeagent/coreapi"
)

// changed is the outcome of a call that changes nodes.
type changed struct {
	nodes []int64 // whose revision was raised
	part  coreapi.Part
	// serving says that the change concerns only nodes that serve clients: registered ones
	// with an inbound. The others fetch it too, and nobody has to wait for them.
	serving  bool
	warnings []string // what the nodes will warn of
	began    time.Time
}

// maxChange bounds the header with a Change, in bytes. A proxy refuses an answer whose header is larger than
// its buffer, of 4 KB by default (nginx, proxy_buffer_size).
const maxChange = 2 << 10

// toWaitFor returns the Change of c as JSON. It has at most maxChange bytes, and more only where the tag of its
// part is long. toWaitFor reads the nodes' revisions after the commit. Where another change followed at once, the
// command waits for that one's revision, which has this change too. Where the nodes are too many, coreapi.AllNodes
// takes their place.
func (s *Server) toWaitFor(ctx context.Context, c changed) ([]byte, error) {
	const most = maxChange / len(`{"node":1,"revision":1},`)
	refusing, err := s.store.Refusing(ctx, c.nodes)
	if err != nil {
		return nil, err
	}
	change := coreapi.Change{Part: c.part}
	if len(c.nodes) <= most {
		if change.Nodes, err = s.store.RevisionsOf(ctx, c.nodes, c.serving); err != nil {
			return nil, err
		}
		change.Refusing = slices.DeleteFunc(refusing, func(id int64) bool {
			return !slices.ContainsFunc(change.Nodes, func(r coreapi.Revision) bool { return r.Node == id })
		})
		if raw, err := json.Marshal(change); err != nil || len(raw) <= maxChange || len(c.nodes) <= 1 { // all in place of one is no shorter
			return raw, err
		}
	}
	all, err := s.allSince(ctx, c)
	if err != nil {
		return nil, err
	}
	if len(refusing) <= most { // a command that does not wait asks about these alone
		change.Nodes, err = s.store.RevisionsOf(ctx, refusing, c.serving)
		if err != nil {
			return nil, err
		}
		change.Refusing = []int64{}
		for _, r := range change.Nodes {
			change.Refusing = append(change.Refusing, r.Node)
		}
		change.Nodes = append([]coreapi.Revision{all}, change.Nodes...)
		change.Unserving = !c.serving
		if raw, err := json.Marshal(change); err != nil || len(raw) <= maxChange {
			return raw, err
		}
	}
	return json.Marshal(coreapi.Change{Nodes: []coreapi.Revision{all}, Part: c.part, Unserving: !c.serving}) // it asks about all
}

// allSince stands for the nodes of a change. Each has a revision of at least the time at which the change began.
// One of them is read for the case that the clock was set back meanwhile.
func (s *Server) allSince(ctx context.Context, c changed) (coreapi.Revision, error) {
	since := coreapi.Revision{Node: coreapi.AllNodes, Revision: c.began.UnixMilli()}
	one, err := s.store.RevisionsOf(ctx, c.nodes[:1], false)
	if len(one) == 1 {
		since.Revision = min(since.Revision, one[0].Revision)
	}
	return since, err
}

const (
	// fewNodes is how many nodes are woken before the answer to a change is made. More of them would take
	// the processor from the answer, a millisecond each.
	fewNodes = 100
	// wakeAfter bounds how long many nodes wait for the answer: for one that its client does not read.
	wakeAfter = 200 * time.Millisecond
)

// wake wakes the heartbeats of nodes that were changed: many of them once the request is answered.
func (s *Server) wake(ctx context.Context, nodes []int64) {
	answered, waits := ctx.Value(answeredKey{}).(*[]func())
	if !waits || len(nodes) <= fewNodes {
		s.hub.Changed(nodes...)
		return
	}
	now := sync.OnceFunc(func() { s.hub.Changed(nodes...) })
	timer := time.AfterFunc(wakeAfter, now)
	*answered = append(*answered, func() { timer.Stop(); now() })
}

type answeredKey struct{}

// untilAnswered runs answer with a context in which wake may wait until w has the answer. They are woken in a
// goroutine of their own: a client reads an answer's end only when its handler has returned.
func untilAnswered(ctx context.Context, w http.ResponseWriter, answer func(context.Context)) {
	var answered []func()
	written := false
	defer func() {
		if len(answered) == 0 {
			return
		}
		if written { // the writer of a panic's answer is further up
			_ = http.NewResponseController(w).Flush() // not every writer of a test can
		}
		go func() {
			for _, f := range answered {
				f()
			}
		}()
	}()
	answer(context.WithValue(ctx, answeredKey{}, &answered))
	written = true
}

// printable returns a text as a header can have it: on one line, without control characters.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
