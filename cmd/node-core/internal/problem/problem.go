// Package problem writes errors as RFC 9457 problem JSON with a stable code.
package problem

import (
	"encoding/json"
	"net/http"
)

// Problem is the body of an answer that reports an error. It is also a Go error, whose text is
// the detail.
type Problem struct {
	Status int    `json:"status"` // HTTP status
	Code   string `json:"code"`   // stable; programs may depend on it
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
	Field  string `json:"field,omitempty"` // name of the wrong member of the request's body; may be empty
}

func (p *Problem) Error() string { return p.Detail }

// New makes a problem. detail is for an operator to read.
func New(status int, code, detail string) *Problem {
	return &Problem{Status: status, Code: code, Title: http.StatusText(status), Detail: detail}
}

// InField makes a problem for one wrong member of the request's body.
func InField(field, detail string) *Problem {
	return &Problem{
		Status: http.StatusBadRequest, Code: "invalid_field", Title: "The body has a member with a wrong value",
		Detail: field + ": " + detail, Field: field,
	}
}

// Write writes the problem as the answer.
func (p *Problem) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // fails only where the client has disconnected
}
