// Package problem writes errors as RFC 9457 problem JSON with a stable code.
package problem

import (
	"encoding/json"
	"net/http"
)

// Problem is an answer that is no success.
type Problem struct {
	Status int    `json:"status"` // HTTP
	Code   string `json:"code"`   // stable; programs may depend on it
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
	Field  string `json:"field,omitempty"` // of the body, where one is at fault
}

func (p *Problem) Error() string { return p.Detail }

// New makes a problem.
func New(status int, code, detail string) *Problem {
	return &Problem{Status: status, Code: code, Title: http.StatusText(status), Detail: detail}
}

// InField makes a problem with one member of the body.
func InField(field, detail string) *Problem {
	return &Problem{
		Status: http.StatusBadRequest, Code: "invalid_field", Title: "The body has a member that can't be taken",
		Detail: field + ": " + detail, Field: field,
	}
}

// Write answers with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone, then
}
