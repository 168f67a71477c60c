package importer

import (
	"time"

	"nodeagent/coreapi"
)

// Left is a part that is not carried over.
type Left struct {
	Kind   string `json:"kind"` // inbound, client, user, host, …
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Read is what was read of a panel.
type Read struct {
	Import coreapi.Import
	Left   []Left
	// Notes are sentences about what an operator has to see to.
	Notes []string
}

// Options are what an operator says of an import.
type Options struct {
	Node   string // its name, for the names of groups
	Prefix string // of the names of users
	Now    time.Time
}

// panel is what a reader has read.
type panel struct {
	kind     string // 3x-ui, marzban, remnawave
	id       string // of this panel, so that two panels of one kind are told apart
	inbounds []*inbound
	people   []*person
	left     []Left
	notes    []string
}

func (p *panel) leave(kind, name, reason string) {
	p.left = append(p.left, Left{kind, printable(name, 200), reason})
}

// inbound is an inbound of a panel.
type inbound struct {
	tag      string
	note     string
	protocol string
	config   map[string]any // Xray's object without clients
	vision   bool           // its clients can have a flow
	method   string         // of Shadowsocks
	disabled bool
	hosts    []coreapi.HostEdit
	flow     string // that its clients have unless they say another; finish sets it
}

// person is a user of a panel.
type person struct {
	name    string
	note    string
	contact map[string]string
	sub     coreapi.ImportSubscription // without UUID, group and credentials
	uuids   []string                   // what can be the UUID of the subscription, the best first
	logins  []login
	origin  string // how the panel names the user; the name where it is empty
}

// login is what a person proves itself with on an inbound.
type login struct {
	tag string
	coreapi.Credential
}
