package coreclient

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"

	"nodeagent/coreclient/wire"
)

func gzipped(t testing.TB, text string) string {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.String()
}

// routes calls each of Core's routes, by path.
var routes = map[string]func(*testing.T, *Client) error{
	wire.PathRegister: func(t *testing.T, c *Client) error {
		_, err := c.Register(t.Context(), "k", `{}`)
		return err
	},
	wire.PathHeartbeat: func(t *testing.T, c *Client) error {
		_, err := c.Heartbeat(t.Context(), wire.HeartbeatRequest{}, "", "k", 0)
		return err
	},
	wire.PathConfig: func(t *testing.T, c *Client) error {
		_, _, _, err := c.Config(t.Context(), "")
		return err
	},
	wire.PathUsage:         posting(wire.PathUsage),
	wire.PathOutboundUsage: posting(wire.PathOutboundUsage),
	wire.PathSessionEvents: posting(wire.PathSessionEvents),
	wire.PathApplied:       posting(wire.PathApplied),
	wire.PathError:         posting(wire.PathError),
}

func posting(path string) func(*testing.T, *Client) error {
	return func(t *testing.T, c *Client) error { return c.Post(t.Context(), path, "k", []byte(`{}`)) }
}

// A success is a 2xx without a body, or with JSON that does not say "ok": false.
func TestWhatIsAnAcknowledgement(t *testing.T) {
	const jsonType = "application/json"
	for name, c := range map[string]struct {
		status      int
		contentType string
		encoding    string
		body        string
		want        error  // nil for a success
		mentions    string // in the error
	}{
		"JSON":                              {200, jsonType, "", `{"ok":true}`, nil, ""},
		"created, with JSON":                {201, jsonType, "", `{"ok":true,"id":[1,{"ok":false}]}`, nil, ""},
		"JSON that says nothing of ok":      {200, jsonType, "", `{}`, nil, ""},
		"JSON that a framework calls HTML":  {200, "text/html", "", `{"ok":true}`, nil, ""},
		"no content":                        {204, "", "", "", nil, ""},
		"no body":                           {200, "text/html", "", "", nil, ""},
		"a byte order mark":                 {200, jsonType, "", "\xef\xbb\xbf{\"ok\":true}", nil, ""},
		"white space around":                {200, jsonType, "", " \r\n{\"ok\":true}\n\n", nil, ""},
		"gzip":                              {200, jsonType, "gzip", gzipped(t, `{"ok":true}`), nil, ""},
		"no body, said to be gzip":          {200, jsonType, "gzip", "", nil, ""},
		"a name twice":                      {200, jsonType, "", `{"ok":true,"ok":true}`, nil, ""},
		"an array":                          {200, jsonType, "", `[]`, nil, ""},
		"a string":                          {200, "application/json; charset=utf-8", "", `"done"`, nil, ""},
		"not ok":                            {200, jsonType, "", `{"ok":false,"error":"the disk is full"}`, ErrNotTaken, "the disk is full"},
		"not ok, at the end":                {200, jsonType, "", `{"usage":{"ok":true},"ok" : false}`, ErrNotTaken, ""},
		"ok and not ok":                     {200, jsonType, "", `{"ok":false,"ok":true}`, ErrNotTaken, ""},
		"false":                             {200, jsonType, "", `false`, ErrNotTaken, ""},
		"a captive portal":                  {200, "text/html; charset=utf-8", "", "<!DOCTYPE html>\n<html><title>Log in\x1b[2J</title>", ErrNotCore, `200 OK, text/html; charset=utf-8: the body is not JSON; it begins with "<!DOCTYPE html> <html><title>Log in[2J</title>"`},
		"HTML that is said to be JSON":      {200, jsonType, "", "<html>", ErrNotCore, "<html>"},
		"a proxy's plain text":              {200, "text/plain", "", "OK", ErrNotCore, "text/plain"},
		"plain text that could be a number": {200, "text/plain", "", "200", ErrNotCore, "no JSON object"},
		"a string that nobody calls JSON":   {200, "text/plain", "", `"maintenance"`, ErrNotCore, ""},
		"nothing but white space":           {200, jsonType, "", "\n", ErrNotCore, ""},
		"cut JSON":                          {200, jsonType, "", `{"ok":true`, ErrNotCore, ""},
		"JSON with a tail":                  {200, jsonType, "", `{"ok":true}<br>`, ErrNotCore, ""},
		"two values":                        {200, jsonType, "", `{"ok":true}{"ok":true}`, ErrNotCore, ""},
		"too long":                          {200, jsonType, "", `{"x":"` + strings.Repeat("x", maxSmall) + `"}`, ErrNotCore, "more than 1048576 bytes"},
		"too long, packed":                  {200, jsonType, "gzip", gzipped(t, `{"x":"`+strings.Repeat("x", maxSmall)+`"}`), ErrNotCore, "more than 1048576 bytes"},
		"HTML, packed":                      {200, "text/html", "gzip", gzipped(t, "<html>"), ErrNotCore, "<html>"},
		"not packed, as is said":            {200, jsonType, "gzip", `{"ok":true}`, ErrNotCore, "not compressed"},
		"packed, cut":                       {200, jsonType, "gzip", gzipped(t, `{"ok":true}`)[:15], ErrNotCore, "decompress"},
		"an unknown encoding":               {200, jsonType, "br", `{"ok":true}`, ErrNotCore, `"br"`},
		"a redirect":                        {302, "text/html", "", "", ErrNotCore, `redirect to "/login"`},
		"not modified, which none asked":    {304, "", "", "", ErrNotCore, "304"},
	} {
		t.Run(name, func(t *testing.T) {
			client := core(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				if c.contentType != "" {
					w.Header().Set("Content-Type", c.contentType)
				}
				if c.encoding != "" {
					w.Header().Set("Content-Encoding", c.encoding)
				}
				if c.status == http.StatusFound {
					w.Header().Set("Location", "/login")
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body) // the client may have gone
			})
			for path, call := range routes {
				err := call(t, client)
				switch {
				case c.want == nil && (path == wire.PathRegister || path == wire.PathConfig):
					continue // what they need more has tests of its own
				case c.want == nil && path == wire.PathHeartbeat && (name == "an array" || name == "a string"):
					if !errors.Is(err, ErrNotCore) {
						t.Errorf("%s: got %v, want ErrNotCore: needSync must be found in the answer", path, err)
					}
					continue
				case c.want == nil:
					if err != nil {
						t.Errorf("%s: %v", path, err)
					}
					continue
				case path == wire.PathConfig && strings.HasPrefix(name, "too long"):
					continue // a configuration may be long
				}
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.mentions) {
					t.Errorf("%s: got %v, want %v with %q", path, err, c.want, c.mentions)
				}
				if err != nil && ClassOf(err) != Unreachable {
					t.Errorf("%s: class %d, want Unreachable", path, ClassOf(err))
				}
				if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("%s: the error has characters that do not print: %q", path, err)
				}
			}
		})
	}
}

// An answer that only looks like an acknowledgement carries no configuration either.
func TestAConfigurationIsAnObject(t *testing.T) {
	for body, want := range map[string]string{
		`{"revision":1}`:               `{"revision":1}`,
		"\xef\xbb\xbf{\"revision\":1}": `{"revision":1}`,
		``:                             "", `[]`: "", `"config"`: "", `{"revision":1`: "", `{"ok":false}`: "", `<html>`: "",
	} {
		c := core(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body)
		})
		got, _, changed, err := c.Config(t.Context(), "")
		if string(got) != want || changed != (want != "") || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, %v", body, got, changed, err)
		}
	}
}

// A connection that breaks in the middle of the answer is no page of somebody else.
func TestAnAnswerThatBreaksOff(t *testing.T) {
	c := core(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"ok":true}`)
	})
	err := c.Post(t.Context(), wire.PathUsage, "k", []byte(`{}`))
	if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrNotCore) || ClassOf(err) != Unreachable {
		t.Errorf("got %v, want an unexpected end", err)
	}
}

// Errors of Core and of proxies reach the operator's terminal.
func TestErrorsHaveNoControlCharacters(t *testing.T) {
	for contentType, body := range map[string]string{
		"application/problem+json": `{"code":"x\u001b]0;y\u0007","detail":"a\u001b[2Jb\u202ec\nd"}`,
		"text/plain":               "a\x1b[2Jb\xff\u202ec\nd",
	} {
		c := core(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, body)
		})
		err := c.Post(t.Context(), wire.PathUsage, "k", []byte(`{}`))
		if err == nil || !strings.Contains(err.Error(), "a[2Jbc d") || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: got %q", contentType, err)
		}
	}
}

// No body is taken for an acknowledgement that encoding/json does not read as JSON, or that says
// "ok": false.
func FuzzAcknowledgement(f *testing.F) {
	for _, body := range []string{"", `{"ok":true}`, `{"ok":false}`, `{"o\u006b":false}`, "\xef\xbb\xbf{}", "<html>", `{"a":[1,2,{"ok":false}]} `, "null", "1e5", `{"ok":true}x`} {
		f.Add([]byte(body), "application/json")
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		answer := httptest.NewRecorder()
		answer.Header().Set("Content-Type", contentType)
		_, _ = answer.Write(body)
		resp := answer.Result()
		defer resp.Body.Close()
		text, err := readAnswer("POST /node/usage", resp, maxSmall)
		if err != nil {
			if !errors.Is(err, ErrNotCore) && !errors.Is(err, ErrNotTaken) || len(err.Error()) > 1000 {
				t.Errorf("%q: error %v", body, err)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q: the error has characters that do not print: %q", body, err)
			}
			return
		}
		if len(body) == 0 {
			return
		}
		var object struct {
			OK any `json:"ok"`
		}
		if !json.Valid(text) || json.Unmarshal(text, &object) == nil && object.OK == false {
			t.Errorf("%q is taken for an acknowledgement", body)
		}
	})
}

// A long configuration is looked through for its end alone, and found whole or cut as a short one.
func TestALongConfigurationIsWhole(t *testing.T) {
	const text = ` {"a":"}\"{\\\\","b":[1,{"c":"\\\\\\\""}],"d":{}} `
	if !json.Valid([]byte(text)) {
		t.Fatal("the test's own text is no JSON")
	}
	end := strings.LastIndexByte(text, '}')
	for i := range len(text) + 1 {
		if got, want := isWhole([]byte(text[:i])), i > end; got != want {
			t.Errorf("%s: whole %v, want %v", text[:i], got, want)
		}
	}
	if isWhole([]byte(text+"x")) || isWhole([]byte("[]")) {
		t.Error("a tail, or an array, is taken for an object")
	}
	long := `{"a":"` + strings.Repeat("x", maxSmall) + `"}`
	for body, good := range map[string]bool{long: true, long[:len(long)-1]: false, "<html>" + long: false} {
		c := core(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		if _, _, changed, err := c.Config(t.Context(), ""); changed != good || errors.Is(err, ErrNotCore) == good {
			t.Errorf("%d bytes: changed %v, %v", len(body), changed, err)
		}
	}
}
