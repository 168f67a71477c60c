package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/internal/logkey"
)

// badInput is a mistake of the caller, who gets the error's text.
type badInput struct{ error }

func newProblem(status int, code, detail string) *coreapi.Problem {
	return &coreapi.Problem{Status: status, Code: code, Title: http.StatusText(status), Detail: detail}
}

func writeProblem(w http.ResponseWriter, p *coreapi.Problem) {
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // fails only where the client has disconnected
}

// problemOf returns the error of an operation as a problem.
func (s *Server) problemOf(ctx context.Context, operation string, err error) *coreapi.Problem {
	_, bad := errors.AsType[badInput](err)
	if p, is := errors.AsType[*coreapi.Problem](err); is {
		return p
	}
	switch {
	case errors.Is(err, corestore.ErrNotFound):
		return newProblem(http.StatusNotFound, coreapi.CodeNotFound, err.Error())
	case errors.Is(err, corestore.ErrExists):
		return newProblem(http.StatusConflict, coreapi.CodeExists, err.Error())
	case errors.Is(err, corestore.ErrChanged):
		return newProblem(http.StatusPreconditionFailed, coreapi.CodeChanged, err.Error())
	case errors.Is(err, corestore.ErrRepeated):
		return repeated()
	case errors.Is(err, corestore.ErrInUse):
		return newProblem(http.StatusConflict, coreapi.CodeInUse, err.Error())
	case bad:
		return newProblem(http.StatusBadRequest, coreapi.CodeBadInput, err.Error())
	}
	if ctx.Err() == nil { // the client is still there: Core failed
		s.log.Error("request failed", logkey.Operation, operation, logkey.Error, err)
	}
	// One line: pgx has a line for each address that it has tried, and a command prints one.
	return newProblem(http.StatusInternalServerError, coreapi.CodeInternal, fmt.Sprintf("%s failed: %s", operation, strings.Join(strings.Fields(err.Error()), " ")))
}

// The package huma makes its errors by a variable. Its own faults do not echo the values of the
// request, which may be secrets.
func init() {
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		p := newProblem(status, codeOf(status), message)
		for _, err := range errs {
			fault := coreapi.Fault{Message: err.Error()}
			if detailed, is := err.(huma.ErrorDetailer); is {
				fault = coreapi.Fault{Location: detailed.ErrorDetail().Location, Message: detailed.ErrorDetail().Message}
			}
			p.Errors = append(p.Errors, fault)
		}
		if len(p.Errors) > 0 {
			p.Detail = fmt.Sprintf("%s: %s: %s", message, p.Errors[0].Location, p.Errors[0].Message)
		}
		return p
	}
}

// codeOf returns the code of a fault that the package huma has found.
func codeOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return coreapi.CodeInvalidJSON
	case http.StatusUnprocessableEntity:
		return coreapi.CodeInvalidRequest
	case http.StatusRequestEntityTooLarge:
		return coreapi.CodeTooLarge
	case http.StatusUnsupportedMediaType:
		return coreapi.CodeUnsupportedContent
	case http.StatusInternalServerError:
		return coreapi.CodeInternal
	}
	return coreapi.CodeOther
}
