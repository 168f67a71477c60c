package nodeapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"

	"github.com/klauspost/compress/gzip"

	"nodeagent/cmd/node-core/internal/problem"
)

// readBody decodes the body, one JSON object of at most limit bytes, into v. Unknown members
// are refused. Its errors are problems; only a body that comes too slowly is another error.
func readBody(r *request, v any, limit int64) error {
	body, err := decompressed(r, limit)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	err = decoder.Decode(v)
	if err == nil {
		if _, err = decoder.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("more data follows the JSON object")
		}
	}
	return bodyProblem(err, limit)
}

// decompressed returns the body decompressed. A compressed body may have at most limit bytes
// before and after decompression, so that a small body can't fill the memory.
func decompressed(r *request, limit int64) (io.Reader, error) {
	body := http.MaxBytesReader(r.w, r.Body, limit)
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		return body, nil
	case "gzip":
		plain, err := gzip.NewReader(body)
		if err != nil {
			return nil, problem.New(http.StatusBadRequest, "invalid_encoding", "the body is not gzip, as its Content-Encoding says: "+err.Error())
		}
		return http.MaxBytesReader(r.w, plain, limit), nil
	default:
		return nil, problem.New(http.StatusUnsupportedMediaType, "unsupported_encoding", fmt.Sprintf("the Content-Encoding of the body is %.40q; want gzip or none", encoding))
	}
}

var unknownField = regexp.MustCompile(`^json: unknown field "(.*)"$`)

// bodyProblem explains an error of reading or decoding the body to the node's operator.
func bodyProblem(err error, limit int64) error {
	if errors.Is(err, os.ErrDeadlineExceeded) { // of the server's ReadTimeout
		return fmt.Errorf("read the body: %w", err) // nothing is wrong with the batch: 503, and the node sends it again
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problem.New(http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("the body has more than %d bytes; send less at a time", limit))
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return problem.InField(wrong.Field, fmt.Sprintf("got %s, want %s", wrong.Value, kindName(wrong.Type.String())))
	}
	if errors.Is(err, io.EOF) {
		return problem.New(http.StatusBadRequest, "invalid_json", "the body is empty")
	}
	// encoding/json has no error type for an unknown member.
	if match := unknownField.FindStringSubmatch(err.Error()); match != nil {
		return problem.InField(match[1], "it is unknown")
	}
	return problem.New(http.StatusBadRequest, "invalid_json", "the body is not the JSON that this route wants: "+err.Error())
}

// kindName names the JSON type that a Go type is decoded from.
func kindName(goType string) string {
	switch {
	case strings.HasPrefix(goType, "map"):
		return "an object"
	case strings.HasPrefix(goType, "[]"):
		return "an array"
	case strings.HasPrefix(goType, "int"):
		return "a whole number"
	case goType == "string", strings.HasPrefix(goType, "wire."):
		return "a string"
	case goType == "bool":
		return "true or false"
	}
	return "another type"
}

func writeJSON(r *request, v any) {
	r.w.Header().Set("Content-Type", "application/json")
	var body bytes.Buffer
	_ = json.NewEncoder(&body).Encode(v) // the values of answers have no type that can't be encoded
	writePieces(r, body.Bytes())
}
