package adminapi

import (
	"encoding/json"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
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

// userArgs names a user by name or id, and says what is set. userAdd takes the name of the new
// user.
type userArgs struct {
	User string
	coreapi.UserEdit
}

// subscriptionArgs names the user of a new subscription, or the subscription to edit by its id or
// UUID, and says what is set.
type subscriptionArgs struct {
	ID   string
	User string
	coreapi.SubscriptionEdit
}

// subscriptionFilter says which subscriptions are listed.
type subscriptionFilter struct{ Status, User, Group, Plan, Search string }

// planArgs names a plan by name or id, and says what is set.
type planArgs struct {
	Plan string
	coreapi.PlanEdit
}

// groupArgs names a group by name or id, and says what is set.
type groupArgs struct {
	Group string
	coreapi.GroupEdit
}

// idArgs names a row by its id; a subscription by its UUID too.
type idArgs struct{ ID string }

// limitArgs bounds the number of rows of an answer; 0 means 1000.
type limitArgs struct{ Limit int }

// errorArgs names a node, or none for all, and bounds the answer.
type errorArgs struct {
	Node string
	limitArgs
}

// userDetails, subscriptionDetails and groupDetails are their namesakes of the package coreapi with rows of
// the store, whose terms have more than their members.
type (
	userDetails struct {
		corestore.User
		Subscriptions []corestore.Subscription `json:"subscriptions" nullable:"false"`
	}
	subscriptionDetails struct {
		corestore.Subscription
		URL     string           `json:"url" doc:"The own link of the subscription, which applications fetch. It is a secret."`
		Mirrors []string         `json:"mirrors,omitempty" doc:"The same link at other addresses."`
		Links   []string         `json:"links" nullable:"false"`
		NoLinks []string         `json:"without,omitempty" doc:"Inbounds without a link and nodes that serve nobody, each with the reason."`
		Fetched *coreapi.Fetched `json:"fetched,omitempty" doc:"When the own link was fetched last; missing for never."`
		Devices int64            `json:"devices" doc:"How many devices have fetched the own link and have said which one they are."`
	}
	groupDetails struct {
		corestore.Group
		NodeNames     []string `json:"nodeNames" nullable:"false"`
		ProtocolNames []string `json:"protocolNames" nullable:"false" doc:"NODE/TAG"`
	}
)
