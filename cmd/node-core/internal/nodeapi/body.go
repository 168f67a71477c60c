package nodeapi

import (
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

// readBody decodes one JSON object of at most limit bytes. The body is read
// whole before anything is done with it.
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
			err = errors.New("something follows the JSON object")
		}
	}
	return bodyProblem(err, limit)
}

// decompressed bounds the body as it comes and, where it is packed, as it unpacks.
func decompressed(r *request, limit int64) (io.Reader, error) {
	body := http.MaxBytesReader(r.w, r.Body, limit)
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		return body, nil
	case "gzip":
		plain, err := gzip.NewReader(body)
		if err != nil {
			return nil, problem.New(http.StatusBadRequest, "invalid_encoding", "the body is not packed as gzip: "+err.Error())
		}
		return http.MaxBytesReader(r.w, plain, limit), nil
	default:
		return nil, problem.New(http.StatusUnsupportedMediaType, "unsupported_encoding", fmt.Sprintf("the body is packed as %.40q; want gzip or nothing", encoding))
	}
}

var unknownField = regexp.MustCompile(`^json: unknown field "(.*)"$`)

func bodyProblem(err error, limit int64) error {
	if errors.Is(err, os.ErrDeadlineExceeded) { // of the server's ReadTimeout
		return fmt.Errorf("read the body: %w", err) // nothing is wrong with the batch: 503, and the node sends it again
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problem.New(http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("the body has more than %d bytes; send less at a time", limit))
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return problem.InField(wrong.Field, fmt.Sprintf("it is a %s, want %s", wrong.Value, kindName(wrong.Type.String())))
	}
	if errors.Is(err, io.EOF) {
		return problem.New(http.StatusBadRequest, "invalid_json", "the body is empty")
	}
	// encoding/json has no type for this one.
	if match := unknownField.FindStringSubmatch(err.Error()); match != nil {
		return problem.InField(match[1], "the contract has no such member")
	}
	return problem.New(http.StatusBadRequest, "invalid_json", "the body is no JSON as the contract has it: "+err.Error())
}

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

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the node has gone, then: it asks again
}
