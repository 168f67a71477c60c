package nodeapi

import (
	"fmt"
	"strings"

	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
)

// maxMessage is how many bytes of an error's message are stored.
const maxMessage = 8000

func (a *API) nodeError(r *request) (any, error) {
	var body wire.ErrorRequest
	if err := readBody(r, &body, maxSmallBody); err != nil {
		return nil, err
	}
	if body.Message == "" {
		return nil, problem.InField("message", "it is missing")
	}
	if len(body.Code) > maxTag {
		return nil, problem.InField("code", fmt.Sprintf("want at most %d bytes", maxTag))
	}
	body.Message = strings.ToValidUTF8(body.Message[:min(len(body.Message), maxMessage)], "") // the cut may be inside a character
	a.log.Warn("node reported an error", logkey.Node, r.nodeID, logkey.Code, body.Code, logkey.Message, body.Message)
	if err := a.store.AddError(r.Context(), r.nodeID, r.idempotencyKey, body); err != nil {
		return nil, err
	}
	a.hub.Reported(r.nodeID)
	return wire.OK{OK: true}, nil
}
