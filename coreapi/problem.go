package coreapi

// Problem is an answer that reports an error: RFC 9457 problem JSON. Its text is the detail.
type Problem struct {
	Status int    `json:"status" doc:"The status of HTTP."`
	Code   string `json:"code" doc:"Stable; programs may depend on it."`
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty" doc:"For a person to read."`
	// Errors are the single faults of a request that does not fit the API's description.
	Errors []Fault `json:"errors,omitempty"`
}

// Fault is one fault of a request.
type Fault struct {
	Location string `json:"location,omitempty" doc:"Where the fault is, such as body.name."`
	Message  string `json:"message"`
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus makes the problem an error of the package huma.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns the content type of a problem.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// The codes of problems.
const (
	CodeInvalidJSON        = "invalid_json"        // 400: the body is no JSON
	CodeBadInput           = "bad_input"           // 400: a value that Core refuses, the detail says why
	CodeInvalidRequest     = "invalid_request"     // 422: the request does not fit the API's description
	CodeNoToken            = "no_token"            // 401: the request has no token
	CodeUnknownToken       = "unknown_token"       // 401: no such token; it was removed or never there
	CodeExpiredToken       = "expired_token"       // 401: the token's time is over
	CodeForbidden          = "forbidden"           // 403: the token's role may not do that
	CodeNotFound           = "not_found"           // 404: no row has this name or id
	CodeNoRoute            = "no_route"            // 404: the API has no such path
	CodeMethodNotAllowed   = "method_not_allowed"  // 405
	CodeExists             = "exists"              // 409: another row has the name or tag
	CodeInUse              = "in_use"              // 409: others refer to the row
	CodeRepeated           = "repeated"            // 409: the change of this Idempotency-Key is made, and its answer is not kept
	CodeChanged            = "changed"             // 412: the row is not as If-Match says
	CodeKeyReused          = "key_reused"          // 422: another request had this Idempotency-Key
	CodeTooLarge           = "too_large"           // 413: the body is too large
	CodeUnsupportedContent = "unsupported_content" // 415: the body is not application/json
	CodeInternal           = "internal"            // 500: Core failed; its log says more
	CodeTooManyStreams     = "too_many_streams"    // 503: Core serves as many streams of events as it may
	CodeOther              = "other"               // any other status
)
