package coreapi

import (
	"context"
	"net/http"
	"time"
)

// Change is what a request has changed of nodes' configurations: what one can wait for.
type Change struct {
	// Nodes are the nodes that the change concerns, each with the first of its revisions that
	// has the change.
	Nodes []Revision `json:"nodes" nullable:"false"`
	Part  Part       `json:"part,omitzero"`
	// Refusing are the nodes, of Nodes, that refuse a part of their configuration already. It is nil where
	// Core is of a version that does not say it. Wait does not need it.
	Refusing []int64 `json:"refusing,omitzero" nullable:"false"`
	// Unserving says that AllNodes stands for the nodes that serve nobody too.
	Unserving bool `json:"unserving,omitempty" doc:"Node 0 stands for the nodes that serve nobody too."`
}

// Revision is a revision of a node's configuration.
type Revision struct {
	Node     int64 `json:"node" doc:"The node's id; 0 for all nodes that serve clients, and with unserving also others, that have this revision or a later one."`
	Revision int64 `json:"revision"`
}

// AllNodes is the Node of a Revision that stands for all nodes that serve clients (see Change.Unserving) and have
// this revision or a later one, also those that another change has raised. It takes the place of nodes that are too many for HeaderChange. Commands of earlier
// versions hand it on to Wait as any other.
const AllNodes = 0

// Part is the inbound or the outbound that a change adds or replaces. It is the zero value for
// any other change.
type Part struct {
	Kind string `json:"kind" doc:"inbound, outbound or mtproto; empty for none"`
	Tag  string `json:"tag"`
}

// MaxWait bounds how long Core waits for nodes.
const MaxWait = 10 * time.Minute

// WaitArgs says for what to wait. With a Wait of 0 the answer is how it stands now.
type WaitArgs struct {
	Change
	Wait time.Duration `json:"wait,omitempty" minimum:"0" maximum:"600000000000" doc:"How long to wait at most, in nanoseconds."`
}

// State is how a node is to a change.
type State string

// The states of a node to a change.
const (
	Runs    State = "runs"    // it runs the change
	Refuses State = "refuses" // it has the change and does not run it
	Away    State = "away"    // it has not been heard of for a while, or never
	Waiting State = "waiting" // it was heard of, and has not answered to the change yet
)

// NodeState says how a node is to a change.
type NodeState struct {
	Node   int64      `json:"node"`
	Name   string     `json:"name"`
	State  State      `json:"state" enum:"runs,refuses,away,waiting"`
	Since  *time.Time `json:"since" doc:"When an away or waiting node was heard of last, UTC; null for never."`
	Reason string     `json:"reason,omitempty" doc:"Why it does not run the change, as far as no part says it."`
	// Refused are the parts of the change that the node refuses.
	Refused []Refusal `json:"refused,omitempty"`
	// Others are the parts that it refused before, which are no part of the change.
	Others []Refusal `json:"others,omitempty"`
}

// Refusal is a part of its configuration that a node does not run: the part keeps the form
// before, or stays out. Without a kind it is the whole configuration.
type Refusal struct {
	Kind   string    `json:"kind"`
	Tag    string    `json:"tag,omitempty"`
	Client string    `json:"client,omitempty"`
	Reason string    `json:"reason"`
	Retry  bool      `json:"retry" doc:"The node tries it again by itself."`
	Since  time.Time `json:"since" doc:"When Core was told first, UTC."`
	// SinceRevision is the first revision in which the node refused the part.
	SinceRevision int64 `json:"sinceRevision"`
}

// Wait waits until each node runs the change or refuses it.
func (c *Client) Wait(ctx context.Context, args WaitArgs) (states []NodeState, err error) {
	args.Refusing = nil // a Core of an earlier version refuses members that it does not know
	_, err = c.do(ctx, request{method: http.MethodPost, path: "/wait", body: args, wait: args.Wait}, &states)
	return states, err
}
