package nodeapi

import (
	"fmt"

	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
)

// Bounds of a status: what a node sends at the most, and some more.
const (
	maxStatusBody     = 1 << 20
	maxStatusInbounds = 1000
	maxStatusWarnings = 200
	maxStatusText     = 2000 // bytes of a reason or a warning
)

// status stores how the node is. It changes nothing else: a warning is no error of the node.
func (a *API) status(r *request) (any, error) {
	var body wire.StatusRequest
	if err := readBody(r, &body, maxStatusBody); err != nil {
		return nil, err
	}
	if len(body.Inbounds) > maxStatusInbounds || len(body.Warnings) > maxStatusWarnings {
		return nil, problem.InField("inbounds", fmt.Sprintf("want at most %d, and at most %d warnings", maxStatusInbounds, maxStatusWarnings))
	}
	if len(body.Versions.Xray) > maxTag || len(body.Versions.Telemt) > maxTag {
		return nil, problem.InField("versions", fmt.Sprintf("want at most %d bytes each", maxTag))
	}
	for i, in := range body.Inbounds {
		row := fmt.Sprintf("inbounds[%d].", i)
		switch {
		case in.State != wire.HealthReady && in.State != wire.HealthDegraded && in.State != wire.HealthFailed:
			return nil, problem.InField(row+"state", fmt.Sprintf("got %.40q, want ready, degraded or failed", in.State))
		case len(in.Tag) > maxTag || len(in.Protocol) > maxTag:
			return nil, problem.InField(row+"tag", fmt.Sprintf("want at most %d bytes", maxTag))
		case len(in.Reason) > maxStatusText:
			return nil, problem.InField(row+"reason", fmt.Sprintf("want at most %d bytes", maxStatusText))
		}
	}
	for i, text := range body.Warnings {
		if len(text) > maxStatusText {
			return nil, problem.InField(fmt.Sprintf("warnings[%d]", i), fmt.Sprintf("want at most %d bytes", maxStatusText))
		}
	}
	return wire.OK{OK: true}, a.store.SetStatus(r.Context(), r.nodeID, body)
}
