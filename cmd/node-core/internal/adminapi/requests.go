package adminapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/internal/logkey"
)

const (
	headerKey = "Idempotency-Key"
	maxKey    = 200     // bytes of an Idempotency-Key
	maxKept   = 4 << 20 // bytes of an answer that is kept for a repeated request
)

// serveRow answers a request that reads one row, with its ETag. The ETag is computed before the row
// is read: where the row changes between the two, an edit with that ETag is refused, and nothing is
// overwritten. If-None-Match is not heeded: the answer has more than the ETag depends on, such as
// traffic, the status and links.
func (a api) serveRow(ctx huma.Context, op operation, next func(huma.Context)) {
	tag, err := a.server.store.ETag(ctx.Context(), op.etag, rowOf(ctx, op))
	if err != nil {
		next(ctx) // which says what is wrong
		return
	}
	ctx.SetHeader("ETag", tag)
	next(ctx)
}

// rowOf returns the name or id of the row that the path names. An outbound is named by the
// parameters NODE and TAG of the path, which rowOf returns as NODE/TAG.
func rowOf(ctx huma.Context, op operation) string {
	var names []string
	for part := range strings.SplitSeq(op.path, "{") {
		if name, _, isParameter := strings.Cut(part, "}"); isParameter {
			names = append(names, ctx.Param(name))
		}
	}
	return strings.Join(names, "/")
}

// etagsOf returns the ETags of a header.
func etagsOf(header string) (all []string) {
	for tag := range strings.SplitSeq(header, ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag != "" {
			all = append(all, tag)
		}
	}
	return all
}

// serveChange runs an operation that changes something. The store writes the audit log, asks
// for the ETag of If-Match and keeps the Idempotency-Key in the transaction of the change.
func (a api) serveChange(ctx huma.Context, op operation, next func(huma.Context)) {
	r, _ := humago.Unwrap(ctx)
	body, err := io.ReadAll(io.LimitReader(r.Body, max(op.maxBody, maxBody)))
	if err != nil {
		a.refuse(ctx, newProblem(http.StatusBadRequest, coreapi.CodeInvalidJSON, fmt.Sprintf("read the body: %v", err)))
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	who := callerOf(ctx.Context())
	request := &corestore.Request{
		Audit: corestore.AuditEntry{Who: who.name, Role: who.role, Operation: op.id, Target: target(r.URL.Path), Details: details(body, alsoLeftOut[op.id])},
		Key:   ctx.Header(headerKey),
	}
	if etags := etagsOf(ctx.Header("If-Match")); len(etags) > 0 {
		if op.etag == "" {
			a.refuse(ctx, newProblem(http.StatusPreconditionFailed, coreapi.CodeChanged, "this operation changes no row with an ETag; leave If-Match out"))
			return
		}
		request.Unchanged = corestore.IfMatch(op.etag, rowOf(ctx, op), etags)
	}
	if request.Key == "" {
		next(huma.WithContext(ctx, corestore.ForRequest(ctx.Context(), request)))
		return
	}
	a.serveOnce(ctx, op, request, body, next)
}

// serveOnce runs an operation unless its Idempotency-Key was used already. Then it answers what
// was answered first.
func (a api) serveOnce(ctx huma.Context, op operation, request *corestore.Request, body []byte, next func(huma.Context)) {
	if len(request.Key) > maxKey {
		a.refuse(ctx, newProblem(http.StatusBadRequest, coreapi.CodeBadInput, fmt.Sprintf("the %s has more than %d bytes", headerKey, maxKey)))
		return
	}
	r, w := humago.Unwrap(ctx)
	hash := sha256.New()
	_, _ = fmt.Fprintf(hash, "%s %s\n", r.Method, r.URL.RequestURI())
	_, _ = hash.Write(body)
	request.Hash = hash.Sum(nil)
	first, err := a.server.store.Answered(ctx.Context(), request.Audit.Who, request.Key)
	switch {
	case errors.Is(err, corestore.ErrNotFound):
	case err != nil:
		a.refuse(ctx, a.server.problemOf(ctx.Context(), op.id, err))
		return
	case !bytes.Equal(first.Hash, request.Hash):
		a.refuse(ctx, newProblem(http.StatusUnprocessableEntity, coreapi.CodeKeyReused, "another request had this "+headerKey))
		return
	case first.Status == 0:
		a.refuse(ctx, repeated())
		return
	default:
		repeat(w, first)
		return
	}
	kept := &recorded{humaContext: huma.WithContext(ctx, corestore.ForRequest(ctx.Context(), request)), header: http.Header{}}
	next(kept)
	if kept.status/100 != 2 || op.secret || kept.body.Len() > maxKept {
		return
	}
	header, err := json.Marshal(kept.header)
	if err == nil {
		err = a.server.store.KeepAnswer(context.WithoutCancel(ctx.Context()), request.Audit.Who, request.Key,
			corestore.Answered{Status: kept.status, Header: string(header), Body: kept.body.Bytes()})
	}
	if err != nil {
		a.server.log.Error("keep an answer for a repeated request", logkey.Operation, op.id, logkey.Error, err)
	}
}

// repeated is the answer to a repeated request whose first answer is not known.
func repeated() *coreapi.Problem {
	return newProblem(http.StatusConflict, coreapi.CodeRepeated, "a request with this "+headerKey+" is being served, or was: its change is made, and its answer is not kept")
}

// repeat writes what was answered before.
func repeat(w http.ResponseWriter, first corestore.Answered) {
	var header http.Header
	_ = json.Unmarshal([]byte(first.Header), &header) // written by serveOnce
	for name, values := range header {
		for _, value := range values {
			w.Header().Add(name, value)
		}
	}
	w.Header().Set("Idempotent-Replayed", "true")
	w.WriteHeader(first.Status)
	_, _ = w.Write(first.Body) // fails only where the client has disconnected
}

// humaContext is huma.Context under a name that is not one of its methods.
type humaContext interface{ huma.Context }

// recorded keeps the answer of an operation while it is written.
type recorded struct {
	humaContext
	status int
	header http.Header
	body   bytes.Buffer
}

// Unwrap returns the context below.
func (r *recorded) Unwrap() huma.Context { return r.humaContext }

// SetStatus notes the status.
func (r *recorded) SetStatus(code int) {
	r.status = code
	r.humaContext.SetStatus(code)
}

// SetHeader notes the header.
func (r *recorded) SetHeader(name, value string) {
	r.header.Set(name, value)
	r.humaContext.SetHeader(name, value)
}

// AppendHeader notes the header.
func (r *recorded) AppendHeader(name, value string) {
	r.header.Add(name, value)
	r.humaContext.AppendHeader(name, value)
}

// BodyWriter writes to the client and notes what is written.
func (r *recorded) BodyWriter() io.Writer { return io.MultiWriter(r.humaContext.BodyWriter(), &r.body) }

// describeHeaders adds to the document the headers that serveChange and serveRow read.
func describeHeaders(document *huma.OpenAPI) {
	text := func(name, description string) *huma.Param {
		return &huma.Param{Name: name, In: "header", Description: description, Schema: &huma.Schema{Type: huma.TypeString, MaxLength: new(maxKey)}}
	}
	for _, item := range document.Paths {
		for _, op := range []*huma.Operation{item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil && op.OperationID != "wait" {
				op.Parameters = append(op.Parameters, text(headerKey, "A repeated request with the same key changes nothing and gets the first answer, for a day."),
					text("If-Match", "The ETag of the row to change, where the operation changes one that has an ETag: the request is refused where somebody else has changed the row."))
			}
		}
	}
}
