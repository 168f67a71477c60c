package nodeapi

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
)

// maxWait bounds how long a heartbeat is held.
const maxWait = time.Minute

// heartbeat stores that the node is alive. It answers at once where the node has to fetch its
// configuration; else it waits for a change, for as long as the request's Prefer header says.
func (a *API) heartbeat(r *request) (any, error) {
	var body wire.HeartbeatRequest
	if err := readBody(r, &body, maxSmallBody); err != nil {
		return nil, err
	}
	if body.IP != "" && !isIP(body.IP) {
		return nil, problem.InField("ip", "it is not an IP address")
	}
	if body.Revision != nil && *body.Revision < 0 {
		return nil, problem.InField("revision", "want 0 or more")
	}
	changed := a.hub.Next(r.nodeID)
	if err := a.noteAgent(r.Context(), r.nodeID, agentOf(r.UserAgent())); err != nil {
		return nil, err
	}
	revision, err := a.store.Heartbeat(r.Context(), r.nodeID, body)
	if err != nil {
		return nil, err
	}
	held := false
	if body.Revision == nil || *body.Revision != revision {
		if held, err = a.holdsNewest(r); err != nil || !held {
			return wire.HeartbeatResponse{OK: true, NeedSync: true}, err
		}
	}
	timer := time.NewTimer(preferredWait(r.Header.Get(wire.HeaderPrefer)))
	defer timer.Stop()
	select {
	case <-changed:
		return wire.HeartbeatResponse{OK: true, NeedSync: true}, nil
	case <-timer.C:
	case <-a.stopping.Done():
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return wire.HeartbeatResponse{OK: true, Held: held}, nil
}

// noteAgent stores the versions that the node says it has. Where another version of Xray takes
// inbounds that are left out of the node's configuration, or no longer takes others, the
// configuration is another one, and gets another revision.
func (a *API) noteAgent(ctx context.Context, nodeID int64, agent string) error {
	node, err := a.store.NodeByID(ctx, nodeID)
	if err != nil || node.Agent == agent {
		return err
	}
	protocols, err := a.store.Protocols(ctx, nodeID)
	if err != nil {
		return err
	}
	next := node
	next.Agent = agent
	differs := slices.ContainsFunc(protocols, func(p corestore.Protocol) bool {
		return nodeconfig.LeftOut(node, p) != nodeconfig.LeftOut(next, p)
	})
	return a.store.NoteAgent(ctx, nodeID, agent, differs)
}

// holdsNewest reports whether the node holds the newest document, though it does not run it
// as a whole.
func (a *API) holdsNewest(r *request) (bool, error) {
	held := r.Header.Get(wire.HeaderNodeConfig)
	if held == "" {
		return false, nil
	}
	newest, err := a.currentConfig(r.Context(), r.nodeID)
	return err == nil && newest.etag == held, err
}

// maxAgent is how many bytes of a User-Agent are stored.
const maxAgent = 200

// agentOf returns a User-Agent as it is stored and shown: short, and without characters that
// a terminal would not show as they are.
func agentOf(header string) string {
	printable := strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, header)
	return printable[:min(len(printable), maxAgent)]
}

// preferredWait reads "wait=N", in seconds, from a Prefer header (RFC 7240 section 4.3). It is
// at most maxWait, and 0 without one.
func preferredWait(header string) time.Duration {
	for preference := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
		if seconds, err := strconv.Atoi(strings.Trim(value, `"`)); err == nil && strings.EqualFold(name, "wait") && seconds > 0 {
			return min(time.Duration(seconds)*time.Second, maxWait)
		}
	}
	return 0
}
