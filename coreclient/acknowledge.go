package coreclient

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

var (
	// ErrNotCore means that the answer is not one that Core gives: a page of HTML, JSON that is
	// cut short, a redirect to a login.
	ErrNotCore = errors.New("the answer does not come from Core")
	// ErrNotTaken means that the answer has a status of success, and a body that says "ok": false.
	ErrNotTaken = errors.New(`the answer says "ok": false, so Core has not taken the request`)
)

// NotAcknowledged is an answer with a status of 2xx or 3xx that is no success. The body that was
// sent must be kept: nobody said that Core has it. It wraps ErrNotCore or ErrNotTaken, and its
// class is Unreachable.
type NotAcknowledged struct {
	Route       string // method and path
	Status      int    // HTTP
	ContentType string // as the answer names it, printable and shortened; empty for none
	Begins      string // the first printable characters of the body; empty for no body
	Reason      string // what is wrong with the answer

	err error // ErrNotCore or ErrNotTaken
}

func (e *NotAcknowledged) Error() string {
	contentType := e.ContentType
	if contentType == "" {
		contentType = "no content type"
	}
	text := fmt.Sprintf("%s: %v: %d %s, %s: %s", e.Route, e.err, e.Status, http.StatusText(e.Status), contentType, e.Reason)
	if e.Begins != "" {
		text += fmt.Sprintf("; it begins with %q", e.Begins)
	}
	if errors.Is(e.err, ErrNotCore) {
		text += "; check Core's address (it may need a path), and for a proxy or a maintenance page before Core"
	}
	return text
}

func (e *NotAcknowledged) Unwrap() error { return e.err }

// notCore makes a NotAcknowledged of an answer. body may be its beginning alone.
func notCore(route string, resp *http.Response, body []byte, reason string) *NotAcknowledged {
	return &NotAcknowledged{
		Route: route, Status: resp.StatusCode, ContentType: printable(resp.Header.Get("Content-Type"), maxContentType),
		Begins: printable(string(body), maxBegins), Reason: reason, err: ErrNotCore,
	}
}

const (
	maxContentType = 80  // bytes of NotAcknowledged.ContentType
	maxBegins      = 120 // bytes of NotAcknowledged.Begins
)

// byteOrderMark may begin a JSON text, which a reader may ignore (RFC 8259, 8.1).
var byteOrderMark = []byte("\xef\xbb\xbf")

// readAnswer reads the body of an answer with status 2xx, and checks that the answer is a success:
// it has no body, or one that is JSON and does not say "ok": false. Any other answer gives a
// NotAcknowledged. body has no byte order mark; it is empty where the answer has none.
func readAnswer(route string, resp *http.Response, limit int64) (body []byte, err error) {
	body, err = readBody(resp, limit)
	if err != nil {
		if _, broken := errors.AsType[*connectionError](err); broken {
			return nil, fmt.Errorf("%s: read the answer: %w", route, err)
		}
		return nil, notCore(route, resp, nil, err.Error())
	}
	if len(body) == 0 {
		return nil, nil
	}
	text := bytes.TrimPrefix(body, byteOrderMark)
	if len(text) > maxSmall { // a configuration, whose parser finds what is wrong inside
		if !isWhole(text) {
			return nil, notCore(route, resp, body, "the body is not JSON, or it is cut short")
		}
		return text, nil
	}
	kind, denied, err := scanJSON(text)
	switch {
	case err != nil:
		return nil, notCore(route, resp, body, "the body is not JSON")
	case denied:
		no := notCore(route, resp, body, "Core gives no success")
		no.err = ErrNotTaken
		return nil, no
	case kind != '{' && !namesJSON(resp.Header.Get("Content-Type")):
		// A page of plain text can be a number or a word that JSON knows too.
		return nil, notCore(route, resp, body, "the body is no JSON object, and the content type is not JSON")
	}
	return text, nil
}

// scanJSON checks that text is one JSON value, with nothing but white space around it, and returns
// its kind (see jsontext.Kind). denied tells that it is an object that says "ok": false, or false
// itself. A name that comes twice and a character that is not UTF-8 are no errors: they are no
// reason to send a batch again that Core has taken.
func scanJSON(text []byte) (kind jsontext.Kind, denied bool, err error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(text), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if kind = d.PeekKind(); kind != '{' {
		denied = kind == 'f'
		if err := d.SkipValue(); err != nil {
			return kind, denied, err
		}
		return kind, denied, atEnd(d)
	}
	if _, err := d.ReadToken(); err != nil {
		return kind, false, err
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return kind, denied, err
		}
		saysOK := strings.EqualFold(name.String(), "ok")
		if saysOK && d.PeekKind() == 'f' {
			denied = true
		}
		if err := d.SkipValue(); err != nil {
			return kind, denied, err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return kind, denied, err
	}
	return kind, denied, atEnd(d)
}

// atEnd returns an error where something follows the JSON value.
func atEnd(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// isWhole tells whether text begins and ends as one JSON object does. That takes a tenth of the time
// of reading it: a text that is cut short has brackets that are not closed.
func isWhole(text []byte) bool {
	if !isObject(text) {
		return false
	}
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			end := endOfString(text[i+1:])
			if end < 0 {
				return false
			}
			i += 1 + end
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return len(bytes.Trim(text[i+1:], " \t\r\n")) == 0
			}
		}
	}
	return false
}

// endOfString returns where the quote is that ends a JSON string, whose first quote comes before
// text; -1 for none.
func endOfString(text []byte) int {
	for from := 0; ; {
		quote := bytes.IndexByte(text[from:], '"')
		if quote < 0 {
			return -1
		}
		quote += from
		escapes := 0
		for escapes < quote && text[quote-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return quote
		}
		from = quote + 1
	}
}

// namesJSON tells whether a Content-Type is JSON's, as application/json or application/problem+json.
func namesJSON(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && (mediaType == "application/json" || strings.HasSuffix(mediaType, "+json"))
}

// isObject tells whether a JSON text is an object.
func isObject(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) > 0 && text[0] == '{'
}

const (
	// freePlain is how many bytes a body may have, decompressed, however small it came.
	freePlain = 16 << 20
	// maxRatio is how many times larger a body may become beyond that. A document whose
	// clients are on ten inbounds becomes some 40 times larger.
	maxRatio = 100
)

// inProportion reads a decompressed body, and fails where it is out of all proportion to what
// came over the connection: a few kilobytes could otherwise fill the memory.
type inProportion struct {
	io.Reader
	source *connection
	plain  int64
}

func (p *inProportion) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.plain += int64(n)
	if p.plain > freePlain+maxRatio*p.source.n {
		return n, fmt.Errorf("%d compressed bytes became more than %d", p.source.n, p.plain)
	}
	return n, err
}

// readBody reads and decompresses a body of at most limit bytes. It returns a connectionError where
// the connection broke; any other error is one of the answer itself.
func readBody(resp *http.Response, limit int64) ([]byte, error) {
	source := &connection{body: resp.Body}
	var r io.Reader = source
	switch encoding := resp.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		unzip, err := gzip.NewReader(source)
		switch {
		case err == nil:
			r = unzip
		case source.err != nil:
			return nil, source.err
		case errors.Is(err, io.EOF): // no body
			return nil, nil
		default:
			return nil, fmt.Errorf("it is not compressed with gzip, as its header says: %w", err)
		}
	case "zstd":
		unpack, err := zstd.NewReader(source, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, fmt.Errorf("decompress it: %w", err)
		}
		defer unpack.Close()
		r = unpack
	default:
		return nil, fmt.Errorf("it is encoded as %q, which was not asked for", printable(encoding, maxContentType))
	}
	var data bytes.Buffer
	n, err := data.ReadFrom(io.LimitReader(&inProportion{Reader: r, source: source}, limit+1))
	switch {
	case source.err != nil:
		return nil, source.err
	case err != nil:
		return nil, fmt.Errorf("decompress it: %w", err)
	case n > limit:
		return nil, fmt.Errorf("it has more than %d bytes", limit)
	}
	return data.Bytes(), nil
}

// connection is the body of an answer. It keeps the error with which a read failed.
type connection struct {
	body io.Reader
	n    int64 // bytes that were read
	err  error // a *connectionError; nil for none
}

func (c *connection) Read(p []byte) (n int, err error) {
	n, err = c.body.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = &connectionError{err}
	}
	return n, err
}

// connectionError means that a connection broke before an answer was read to its end.
type connectionError struct{ error }

func (e *connectionError) Unwrap() error { return e.error }
