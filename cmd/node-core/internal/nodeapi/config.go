package nodeapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/rendered"
	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
	"nodeagent/internal/logkey"
)

// config answers with the newest configuration of the node, or with 304 where the request's
// If-None-Match names it. Where the request says so, it answers with what lies between the
// configuration that If-None-Match names and the newest one, if that is known.
func (a *API) config(r *request) (any, error) {
	var base string
	var held []string
	for tag := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		held = append(held, strongETag(tag))
	}
	if takesDelta(r) && len(held) == 1 {
		base = held[0]
	}
	document, change, err := a.newest(r.Context(), r.nodeID, base)
	if err != nil {
		return nil, err
	}
	header := r.w.Header()
	header.Set("ETag", document.ETag)
	if slices.Contains(held, document.ETag) {
		r.w.WriteHeader(http.StatusNotModified)
		return nil, nil
	}
	leave, err := a.answering.enter(r.nodeID, maxAnswers)
	if err != nil {
		return nil, err
	}
	defer leave()
	header.Set("Content-Type", "application/json")
	// A node that does not read must not hold the document for ever.
	_ = http.NewResponseController(r.w).SetWriteDeadline(time.Now().Add(a.answerTime)) // not every writer of a test has one
	if change != nil {
		a.sendDelta(r, change)
		return nil, nil
	}
	if err := sendDocument(r, document); err != nil {
		return nil, err
	}
	if takesDelta(r) { // the next answer may be a delta
		return nil, a.rendered.Asked(r.nodeID, document)
	}
	return nil, nil
}

// newest returns the newest document of a node. change leads to it from the document with the ETag
// base; it is nil where the document is to be sent, and where base is empty.
func (a *API) newest(ctx context.Context, nodeID int64, base string) (*rendered.Document, *delta.Delta, error) {
	if base == "" {
		document, err := a.rendered.Document(ctx, nodeID)
		return document, nil, err
	}
	return a.rendered.Delta(ctx, nodeID, base)
}

// takesDelta reports whether the request's A-IM header (RFC 3229, 10.5.3) has deltas.
func takesDelta(r *request) bool {
	for one := range strings.SplitSeq(r.Header.Get(delta.HeaderAccept), ",") {
		name, quality, _ := strings.Cut(one, ";")
		if strings.EqualFold(strings.TrimSpace(name), delta.Manipulation) && strings.ReplaceAll(quality, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

// packFrom is how many bytes a delta has at least to be compressed.
const packFrom = 1024

// sendDelta answers with a delta.
func (a *API) sendDelta(r *request, change *delta.Delta) {
	header := r.w.Header()
	header.Set(delta.HeaderUsed, delta.Manipulation)
	header.Set(delta.HeaderBase, change.Base)
	body := change.Append(nil)
	if len(body) >= packFrom && acceptsZstd(r.Header.Get("Accept-Encoding")) {
		setZstd(header)
		body = rendered.Pack(body)
	}
	r.w.WriteHeader(http.StatusIMUsed)
	writePieces(r, body)
}

func setZstd(header http.Header) {
	header.Set("Content-Encoding", "zstd")
	header.Add("Vary", "Accept-Encoding")
}

// sendDocument answers with a document.
func sendDocument(r *request, document *rendered.Document) error {
	if !acceptsZstd(r.Header.Get("Accept-Encoding")) {
		return document.WriteJSON(r.w)
	}
	frames, err := document.Packed()
	if err != nil {
		return err
	}
	setZstd(r.w.Header())
	writePieces(r, frames...)
	return nil
}

// maxAnswers bounds how many answers with its document a node may have open at a time.
const maxAnswers = 4

// defaultAnswerTime bounds how long a node may take to read its document: a megabyte in ten minutes
// comes over any link.
const defaultAnswerTime = 10 * time.Minute

func (a *API) applied(r *request) (any, error) {
	var body struct {
		Revision *int64 `json:"revision"`
	}
	if err := readBody(r, &body, maxSmallBody); err != nil {
		return nil, err
	}
	var f fields
	revision := f.number("revision", body.Revision, 0, 1<<62)
	if f.err != nil {
		return nil, f.err
	}
	a.log.Info("node applied a configuration", logkey.Node, r.nodeID, logkey.Revision, revision)
	if err := a.store.Applied(r.Context(), r.nodeID, r.idempotencyKey, revision); err != nil {
		return nil, err
	}
	a.hub.Reported(r.nodeID)
	return wire.OK{OK: true}, nil
}
