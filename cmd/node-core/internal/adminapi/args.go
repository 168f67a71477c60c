package adminapi

import (
	"encoding/json"
	"time"
)

// nodeArgs names a node by name or id, and for nodeAdd and nodeCode says the rest.
type nodeArgs struct {
	Node     string
	Region   string
	CodeLife time.Duration // how long the code is good; 0 for a day
}

// mtprotoArgs has the options that a node's MTProto inbounds share.
type mtprotoArgs struct {
	Node    string
	Options json.RawMessage
}

// userArgs names a user by name or id. userAdd takes the name of the new user.
type userArgs struct{ User string }

// idArgs names a row by its id; a subscription by its UUID too.
type idArgs struct{ ID string }

// limitArgs bounds the number of rows of an answer; 0 means 1000.
type limitArgs struct{ Limit int }

// errorArgs names a node, or none for all, and bounds the answer.
type errorArgs struct {
	Node string
	limitArgs
}
