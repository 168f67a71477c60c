package coreapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxSilence is how long a stream may be silent. Core writes every 15 seconds.
	maxSilence = 45 * time.Second
	// followPause is the least time between two connections for one stream.
	followPause = 2 * time.Second
	maxEvent    = 1 << 20 // bytes of one event
)

// EventsAfter returns a page of the events after the one with an id; 0 is before the first.
func (c *Client) EventsAfter(ctx context.Context, after int64, limit int, kinds ...EventKind) (EventPage, error) {
	query := eventQuery(kinds)
	query.Set("after", strconv.FormatInt(after, 10))
	query.Set("limit", strconv.Itoa(limit))
	return call[EventPage](ctx, c, http.MethodGet, "/events", query, nil)
}

func eventQuery(kinds []EventKind) url.Values {
	query := url.Values{}
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	if len(names) > 0 {
		query.Set("kind", strings.Join(names, ","))
	}
	return query
}

// FollowEvents returns events as they come, after the one with an id; 0 is before the first, and a
// negative number means only later ones. Where the connection breaks, it connects again and goes on:
// each event comes once. It ends with ctx, or after an error that another try would not mend. Events
// that Core had deleted before they were read are an event of the kind EventsLost.
func (c *Client) FollowEvents(ctx context.Context, after int64, kinds ...EventKind) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for first := true; ; first = false {
			if !first && sleep(ctx, followPause) != nil {
				return
			}
			stopped, err := c.follow(ctx, &after, kinds, func(e Event) bool { return yield(e, nil) })
			if stopped || ctx.Err() != nil {
				return
			}
			if p, is := errors.AsType[*Problem](err); first && err != nil || is && p.Status/100 == 4 {
				yield(Event{}, err)
				return
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow reads one stream to its end, and moves the cursor. It returns no error where the connection
// broke after it was there. stopped says that yield wants no more.
func (c *Client) follow(ctx context.Context, after *int64, kinds []EventKind, yield func(Event) bool) (stopped bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(maxSilence, cancel)
	defer silence.Stop()
	header := http.Header{"Accept": {"text/event-stream"}}
	if *after >= 0 {
		header.Set("Last-Event-ID", strconv.FormatInt(*after, 10))
	}
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/events", query: eventQuery(kinds), header: header})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(awake{resp.Body, func() { silence.Reset(maxSilence) }})
	lines.Buffer(nil, maxEvent)
	lines.Split(wholeLines)
	var kind, data string
	id := *after // of the message that is read; it counts once the message is whole
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				id = n
			}
		case "event":
			kind = value
		case "data":
			data = value // Core's JSON has one line
		case "":
			if lines.Text() != "" { // a comment
				continue
			}
			if *after = id; data == "" {
				continue
			}
			e := Event{Kind: EventKind(kind)}
			if kind == "" {
				if err := json.Unmarshal([]byte(data), &e); err != nil {
					return false, fmt.Errorf("read an event: %w", err)
				}
			}
			kind, data = "", ""
			if !yield(e) {
				return true, nil
			}
		}
	}
	return false, nil
}

// wholeLines is bufio.ScanLines without a last line that has no end: the connection was cut in it.
func wholeLines(data []byte, atEOF bool) (advance int, line []byte, err error) {
	if atEOF && !bytes.ContainsRune(data, '\n') {
		return len(data), nil, nil
	}
	return bufio.ScanLines(data, atEOF)
}

// awake calls read after each successful read.
type awake struct {
	io.Reader
	read func()
}

func (a awake) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.read()
	}
	return n, err
}
