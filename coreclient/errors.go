package coreclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error is an answer of Core that is no success.
type Error struct {
	Route  string // method and path
	Status int    // HTTP
	Code   string // of the problem JSON, where Core gave one
	Detail string // Core's words, shortened
	// RetryAfter is how long Core asks to wait; zero where it does not.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s: Core answered %d %s", e.Route, e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// ErrNotCore means that something answered that does not speak the contract: a
// page of HTML, cut JSON, a redirect to a login.
var ErrNotCore = errors.New("the answer is not Core's; check the address (it may need a path, as https://core.example/api)")

// ErrUntrusted means that Core's certificate could not be verified.
var ErrUntrusted = errors.New("trust Core")

// Class is what an error means for the caller: what to do next.
type Class int

// The classes of errors.
const (
	Unreachable Class = iota // no answer, or one of 5xx, 429: try again later
	Rejected                 // the key is not accepted: keep serving, slow down
	Missing                  // this Core lacks the route: keep the others going
	TooLarge                 // split the batch
	Refused                  // the batch itself is bad: set it aside
)

// ClassOf sorts an error of a Client's method.
func ClassOf(err error) Class {
	answer, ok := errors.AsType[*Error](err)
	if !ok {
		return Unreachable
	}
	switch s := answer.Status; {
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		return Rejected
	case s == http.StatusNotFound || s == http.StatusMethodNotAllowed:
		return Missing
	case s == http.StatusRequestEntityTooLarge:
		return TooLarge
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500:
		return Unreachable
	}
	return Refused
}

// RetryAfter is how long Core asked to wait with that error, zero for no word.
func RetryAfter(err error) time.Duration {
	if answer, ok := errors.AsType[*Error](err); ok {
		return answer.RetryAfter
	}
	return 0
}

// maxRetryAfter bounds what Core may ask for: a typing error there must not
// silence a node for a year.
const maxRetryAfter = 10 * time.Minute

func parseRetryAfter(header string, now time.Time) time.Duration {
	if header == "" {
		return 0
	}
	var wait time.Duration
	if seconds, err := strconv.Atoi(header); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}

const maxDetail = 300 // bytes of Core's words in an error

// problem reads RFC 9457 problem JSON; anything else becomes its first words.
func problem(body []byte, contentType string) (code, detail string) {
	var p struct {
		Code   string `json:"code"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	if strings.Contains(contentType, "json") && json.Unmarshal(body, &p) == nil {
		if p.Detail == "" {
			p.Detail = p.Title
		}
		return p.Code, shorten(p.Detail)
	}
	if strings.Contains(contentType, "html") {
		return "", "a page of HTML"
	}
	return "", shorten(string(body))
}

func shorten(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + " …"
	}
	return s
}
