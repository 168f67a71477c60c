package coreapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Import is what another panel had, to be added to one node in one transaction. A part that is
// there already stays as it is, so that a repeated request changes nothing. A part that can't be
// added is left out, and the answer says why.
type Import struct {
	Node      string           `json:"node" doc:"Name or id of the node that gets the inbounds."`
	DryRun    bool             `json:"dryRun,omitempty" doc:"Says what would be done, and changes nothing."`
	Protocols []ImportProtocol `json:"protocols,omitempty"`
	Groups    []ImportGroup    `json:"groups,omitempty"`
	Users     []ImportUser     `json:"users,omitempty" doc:"At most 10,000."`
}

// ImportProtocol is an inbound. It is there already where the node has one with this tag, of the
// same protocol and on the same port.
type ImportProtocol struct {
	Tag      string          `json:"tag"`
	Inbound  json.RawMessage `json:"inbound" doc:"Xray's own object, without clients."`
	SNI      string          `json:"sni,omitempty" doc:"The server name that clients send."`
	Flow     string          `json:"flow,omitempty" doc:"Of VLESS: what clients have that say nothing else."`
	Note     string          `json:"note,omitempty"`
	Disabled bool            `json:"disabled,omitempty"`
	Hosts    []HostEdit      `json:"hosts,omitempty" doc:"What links say in the place of the inbound's own."`
}

// ImportGroup is a group that reaches single inbounds of the node. A group of this name that is
// there already is taken as it is.
type ImportGroup struct {
	Name string   `json:"name"`
	Note string   `json:"note,omitempty"`
	Tags []string `json:"tags" nullable:"false" doc:"Of the inbounds that it reaches; those that the node does not have are left out."`
}

// ImportUser is a user. It is there already where a user has the same origin.
type ImportUser struct {
	NewUser
	Origin        string               `json:"origin" doc:"Which panel the user comes from, and as whom."`
	Subscriptions []ImportSubscription `json:"subscriptions,omitempty"`
}

// ImportSubscription is a subscription with what another panel has counted for it.
type ImportSubscription struct {
	UUID                string             `json:"uuid,omitempty" doc:"A new one without it. Secret."`
	Group               string             `json:"group,omitempty" doc:"The name of a group; the default one without it."`
	Disabled            bool               `json:"disabled,omitempty"`
	Note                string             `json:"note,omitempty"`
	LimitBytes          int64              `json:"limitBytes,omitempty"`
	Period              string             `json:"period,omitempty"`
	LimitIPs            int64              `json:"limitIps,omitempty"`
	ExpiresAt           *time.Time         `json:"expiresAt,omitempty"`
	ExpiresAfterSeconds int64              `json:"expiresAfterSeconds,omitempty" doc:"From the first use."`
	BytesUp             int64              `json:"bytesUp,omitempty" doc:"Counted so far."`
	BytesDown           int64              `json:"bytesDown,omitempty" doc:"Counted so far."`
	UsedUp              int64              `json:"usedUp,omitempty" doc:"Of bytesUp, those of the present period."`
	UsedDown            int64              `json:"usedDown,omitempty" doc:"Of bytesDown, those of the present period."`
	PeriodStart         *time.Time         `json:"periodStart,omitempty"`
	CreatedAt           *time.Time         `json:"createdAt,omitempty" doc:"Now without it."`
	Credentials         []ImportCredential `json:"credentials,omitempty" doc:"What is not derived from the UUID. Secret."`
}

// ImportCredential is a Credential that names its inbound by the tag; without one it is of all
// inbounds of the protocol.
type ImportCredential struct {
	Tag string `json:"tag,omitempty"`
	Credential
}

// The states of a part of an import.
const (
	ImportAdded   = "added"   // or would be added
	ImportPresent = "present" // it was there already
	ImportRefused = "refused" // it is left out, and Reason says why
)

// ImportedPart is what has become of a part of an import.
type ImportedPart struct {
	Name   string `json:"name"`
	State  string `json:"state" enum:"added,present,refused"`
	Reason string `json:"reason,omitempty"`
}

// Imported is what an Import has done, or would do. The lists are in the order of the request.
type Imported struct {
	Protocols []ImportedPart `json:"protocols" nullable:"false"`
	Groups    []ImportedPart `json:"groups" nullable:"false"`
	Users     []ImportedPart `json:"users" nullable:"false"`
	Texts     []string       `json:"warnings,omitempty" doc:"What the node will warn of."`
}

// maxImportTime bounds how long Core works on an Import.
const maxImportTime = 5 * time.Minute

// Import adds what another panel had.
func (c *Client) Import(ctx context.Context, what Import) (done Imported, changed Change, err error) {
	header, err := c.do(ctx, request{method: http.MethodPost, path: "/import", body: what, wait: maxImportTime}, &done)
	if raw := header.Get(HeaderChange); err == nil && raw != "" {
		err = json.Unmarshal([]byte(raw), &changed)
	}
	return done, changed, err
}
