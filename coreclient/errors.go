package coreclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Error is an answer of Core with a status of 400 or more.
type Error struct {
	Route  string // method and path
	Status int    // HTTP
	Code   string // of the problem JSON; empty where there is none
	Detail string // Core's explanation, shortened; may be empty
	// RetryAfter is how long Core asks to wait; zero where it does not ask.
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

// ErrDelta means that an answer said that it is a delta, and is none that can be used. Config gets
// the whole configuration.
var ErrDelta = errors.New("the delta that Core sent can't be used")

// RefusesAsking reports whether Core did not take the question, and may take a plainer one.
func (e *Error) RefusesAsking() bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusNotAcceptable, http.StatusPreconditionFailed, http.StatusUnsupportedMediaType, http.StatusExpectationFailed, http.StatusNotImplemented:
		return true
	}
	return false
}

// ErrNotSent means that nothing may be sent to Core now. It is an error of those who hold a
// client back.
var ErrNotSent = errors.New("nothing is sent to Core")

// ErrUntrusted means that the certificate of Core could not be verified.
var ErrUntrusted = errors.New("trust Core")

// Class is what the caller should do about an error.
type Class int

// The classes of errors.
const (
	Unreachable Class = iota // no answer, none of Core's, or 407, 408, 429, 5xx: try again later
	Rejected                 // 401, 403, the key is not accepted: ask seldom
	Missing                  // 404, 405, this Core has no such route: use the others
	TooLarge                 // 413: split the batch
	Refused                  // any other status, the batch is wrong: set it aside
)

// ClassOf returns the class of an error that a Client's method returned.
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
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s == http.StatusProxyAuthRequired || s >= 500:
		return Unreachable
	}
	return Refused
}

// RetryAfter returns how long Core asked to wait with an error; zero where it did not ask.
func RetryAfter(err error) time.Duration {
	if answer, ok := errors.AsType[*Error](err); ok {
		return answer.RetryAfter
	}
	return 0
}

// maxRetryAfter bounds how long Core may ask to wait: a mistake in Core must not silence a node
// for a year.
const maxRetryAfter = 10 * time.Minute

// parseRetryAfter reads a Retry-After header, which has seconds or a date (RFC 9110, 10.2.3).
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

// maxDetail bounds Error.Detail, in bytes.
const maxDetail = 300

// problem reads the code and the detail of problem JSON (RFC 9457). For any other body, detail is
// its beginning.
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
		return printable(p.Code, maxContentType), shorten(p.Detail)
	}
	if strings.Contains(contentType, "html") {
		return "", "a page of HTML"
	}
	return "", shorten(string(body))
}

// shorten puts a text into one line of at most maxDetail bytes.
func shorten(s string) string { return printable(s, maxDetail) }

// printable puts a text that a peer sent into one line of at most limit bytes. Characters that do
// not print are left out: an operator's terminal would obey some of them.
func printable(s string, limit int) string {
	cut := len(s) > 4*limit // most of it may be white space and characters that are left out
	if cut {
		s = s[:4*limit]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > limit {
		s, cut = strings.ToValidUTF8(s[:limit], ""), true
	}
	if cut {
		s += " …"
	}
	return s
}
