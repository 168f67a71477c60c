package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/internal/logkey"
)

const (
	// maxStreams bounds how many streams of events are served at a time. Each reads the database once
	// for every event.
	maxStreams = 100
	// maxStreamsEach bounds how many of them one caller has, by its name: one token leaves room for others.
	maxStreamsEach = 10
	// keepAlive is how often a silent stream says that it lives, and how long a removed token can read on.
	keepAlive = 15 * time.Second
	// streamWrite bounds how long a client may take to read what is written to its stream.
	streamWrite = 30 * time.Second
	// eventsPerRead is how many events a stream reads at once.
	eventsPerRead = 500
	eventStream   = "text/event-stream"
)

// eventsIn are the parameters of the operation events.
type eventsIn struct {
	LimitIn
	After       string   `query:"after" pattern:"^[0-9]{1,18}$" doc:"The id of the last event that is known, and 0 for none: the answer is an EventPage."`
	Kind        []string `query:"kind" maxItems:"50" doc:"Only events of these kinds, divided by commas; with after, or as a stream."`
	Accept      string   `header:"Accept" doc:"text/event-stream makes the answer a stream of events, which goes on until the client ends it."`
	LastEventID string   `header:"Last-Event-ID" pattern:"^[0-9]{1,18}$" doc:"Of a stream: the id of the last event that is known. Without it and after, only later events."`
}

func (in *eventsIn) streams() bool {
	for part := range strings.SplitSeq(in.Accept, ",") {
		if kind, _, _ := strings.Cut(part, ";"); strings.EqualFold(strings.TrimSpace(kind), eventStream) {
			return true
		}
	}
	return false
}

// query returns which events are asked for. has is false where nothing says from where.
func (in *eventsIn) query() (q corestore.EventQuery, has bool, err error) {
	if q.Kinds, err = eventKinds(in.Kind); err != nil {
		return q, false, err
	}
	after := in.After
	if in.streams() && in.LastEventID != "" {
		after = in.LastEventID
	}
	if after == "" {
		return q, false, nil
	}
	q.After, err = strconv.ParseInt(after, 10, 64)
	return q, true, err
}

// eventKinds checks the names of kinds.
func eventKinds(names []string) ([]coreapi.EventKind, error) {
	var kinds []coreapi.EventKind
	for _, name := range names {
		kind := coreapi.EventKind(name)
		if !slices.Contains(coreapi.EventKinds, kind) {
			return nil, badInput{fmt.Errorf("there are no events of the kind %q: want some of %s", name, joined(coreapi.EventKinds))}
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

// registerEvents registers one path with three answers: without after it is the list of sessions that
// it was before Core kept events.
func registerEvents(a api) {
	s := a.server
	op := a.describe(operation{id: "events", method: http.MethodGet, path: "/events", noun: "reports", summary: "Show what has happened: after an event, or as a stream. Without after, which users came online and went offline, the newest last", role: coreapi.ReadOnly})
	schema := func(t reflect.Type, name string) *huma.Schema {
		return a.OpenAPI().Components.Schemas.Schema(t, true, name)
	}
	event := schema(reflect.TypeFor[coreapi.Event](), "Event")
	op.Responses = map[string]*huma.Response{"200": {Description: "With after an EventPage, without it the sessions; as a stream, one Event in each message", Content: map[string]*huma.MediaType{
		"application/json": {Schema: &huma.Schema{OneOf: []*huma.Schema{schema(reflect.TypeFor[[]coreapi.EventRow](), "EventRows"), schema(reflect.TypeFor[coreapi.EventPage](), "EventPage")}}},
		eventStream:        {Schema: event},
	}}}
	huma.Register(a.API, op, func(ctx context.Context, in *eventsIn) (*huma.StreamResponse, error) {
		body, err := s.events(ctx, in)
		if err != nil {
			return nil, s.problemOf(ctx, op.OperationID, err)
		}
		return &huma.StreamResponse{Body: body}, nil
	})
}

// events returns what writes the answer.
func (s *Server) events(ctx context.Context, in *eventsIn) (func(huma.Context), error) {
	q, has, err := in.query()
	if err != nil {
		return nil, err
	}
	if in.streams() {
		return s.stream(ctx, q, has)
	}
	if !has {
		if len(q.Kinds) > 0 {
			return nil, badInput{errors.New("kind goes with after: without after, the answer has sessions alone")}
		}
		rows, err := s.store.Events(ctx, in.Limit)
		return writesJSON(rows), err
	}
	q.Limit = in.Limit
	page, err := s.store.EventsAfter(ctx, q)
	return writesJSON(coreapi.EventPage{Events: page.Events, Next: page.Next, Lost: page.Lost}), err
}

func writesJSON(value any) func(huma.Context) {
	return func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", "application/json")
		ctx.SetStatus(http.StatusOK)
		encoder := json.NewEncoder(ctx.BodyWriter())
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(value) // fails only where the client has disconnected
	}
}

// streamsServed counts the streams of events that are served.
type streamsServed struct {
	mu  sync.Mutex
	all int
	by  map[string]int // by the caller's name
}

// enter counts another stream of a caller until leave is called.
func (c *streamsServed) enter(name string) (leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.by[name] >= maxStreamsEach:
		return nil, newProblem(http.StatusServiceUnavailable, coreapi.CodeTooManyStreams, fmt.Sprintf("this Core serves %d streams of events to %s already; end one of them first", maxStreamsEach, name))
	case c.all >= maxStreams:
		return nil, newProblem(http.StatusServiceUnavailable, coreapi.CodeTooManyStreams, fmt.Sprintf("this Core serves %d streams of events already; ask again in a while, or end another one", maxStreams))
	}
	if c.by == nil {
		c.by = map[string]int{}
	}
	c.all++
	c.by[name]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.all--
		if c.by[name]--; c.by[name] == 0 {
			delete(c.by, name)
		}
	}, nil
}

// stream returns what writes a stream of events.
func (s *Server) stream(ctx context.Context, q corestore.EventQuery, has bool) (func(huma.Context), error) {
	leave, problem := s.streams.enter(callerOf(ctx).name)
	if problem != nil {
		return nil, problem
	}
	if !has {
		newest, err := s.store.NewestEvent(ctx)
		if err != nil {
			leave()
			return nil, err
		}
		q.After = newest
	}
	q.Limit = eventsPerRead
	return func(hctx huma.Context) {
		defer leave()
		r, w := humago.Unwrap(hctx)
		hctx.SetHeader("Content-Type", eventStream)
		hctx.SetHeader("Cache-Control", "no-store")
		hctx.SetHeader("X-Accel-Buffering", "no") // a proxy of nginx passes each event on at once
		hctx.SetStatus(http.StatusOK)
		out := &stream{server: s, request: r, w: w, control: http.NewResponseController(w), query: q}
		if err := out.run(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("end a stream of events; its reader can go on where it was", logkey.Error, err)
		}
	}, nil
}

// stream is one client that reads events as they come (HTML standard, section 9.2.5).
type stream struct {
	server  *Server
	request *http.Request
	w       http.ResponseWriter
	control *http.ResponseController
	query   corestore.EventQuery
}

func (s *stream) run(ctx context.Context) error {
	// The id tells a client that is cut before the first event where it was.
	if !s.write(fmt.Sprintf("retry: 2000\nid: %d\n\n", s.query.After)) {
		return nil
	}
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		next := s.server.hub.NextEvent()
		more, err := s.send(ctx)
		if err != nil || !more {
			return err
		}
		select {
		case <-next:
		case <-tick.C:
			if !s.write(": still here\n\n") {
				return nil
			}
		case <-s.server.stopping.Done():
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// may reports whether the client may still read: a token that was removed meanwhile may not.
func (s *stream) may(ctx context.Context) bool {
	if callerOf(ctx).name == socketCaller {
		return true
	}
	_, problem := s.server.authenticate(s.request)
	return problem == nil
}

// send writes all events that there are. more is false where the stream has to end.
func (s *stream) send(ctx context.Context) (more bool, err error) {
	for {
		if !s.may(ctx) {
			return false, nil
		}
		page, err := s.server.store.EventsAfter(ctx, s.query)
		if err != nil {
			return false, err
		}
		var text strings.Builder
		if page.Lost {
			text.WriteString("event: " + string(coreapi.EventsLost) + "\ndata: {}\n\n")
		}
		for _, e := range page.Events {
			raw, err := json.Marshal(e)
			if err != nil {
				return false, fmt.Errorf("encode event %d: %w", e.ID, err)
			}
			fmt.Fprintf(&text, "id: %d\ndata: %s\n\n", e.ID, raw)
		}
		// Without data the id is noted, and no event is seen.
		if page.Next != s.query.After && (len(page.Events) == 0 || page.Next != page.Events[len(page.Events)-1].ID) {
			fmt.Fprintf(&text, "id: %d\n\n", page.Next)
		}
		s.query.After = page.Next
		if text.Len() > 0 && !s.write(text.String()) {
			return false, nil
		}
		if len(page.Events) < s.query.Limit {
			return true, nil
		}
	}
}

// write reports whether the client is still there.
func (s *stream) write(text string) bool {
	_ = s.control.SetWriteDeadline(time.Now().Add(streamWrite)) // not every writer of a test has one
	_, err := s.w.Write([]byte(text))
	return err == nil && s.control.Flush() == nil
}
