package members

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
)

// FileName is the name of the table's file in the folder of this package.
const FileName = "xray.json"

//go:embed xray.json
var file []byte

// Table says which members Xray's objects have. It is read-only.
type Table struct {
	// Types are all types of values. A type is named by its index. Type 0 takes every value.
	Types []Type `json:"types"`
	// Parts has the types of whole parts: inbound, outbound, routing, policy, dns,
	// observatory and burstObservatory.
	Parts map[string]int `json:"parts"`
	// Clients has the types of the clients of an inbound, by protocol, for protocols whose
	// clients come and go.
	Clients map[string]int `json:"clients"`
	// Settings has for an object that names its kind the type of its member "settings", by
	// the name of the kind in lower case: "inbound" and "outbound" by their protocol,
	// "strategy", "tcpMask" and "udpMask" by their type.
	Settings map[string]map[string]int `json:"settings"`
}

// Type is a type of values. At most one of Members, List and Map is set.
type Type struct {
	// Members has the type of each member of an object, by the member's name.
	Members map[string]int `json:"members,omitzero"`
	// Passed are members that Xray does not have and that pass all the same: node-agent reads
	// them, or they are written by panels and change nothing.
	Passed []string `json:"passed,omitempty"`
	// Removed has members that Xray had once, in lower case, with the text that says what
	// took their place; empty for nothing.
	Removed map[string]string `json:"removed,omitempty"`
	// RemovedKinds has the same for values of the member "type".
	RemovedKinds map[string]string `json:"removedKinds,omitempty"`
	// Settings names the entry of Table.Settings with the type of the member "settings";
	// empty where Members has it.
	Settings string `json:"settings,omitempty"`
	List     int    `json:"list,omitempty"` // the type of a list's elements
	Map      int    `json:"map,omitempty"`  // the type of the values of an object with free names

	// spelled has the names of Members and Passed by their names in lower case.
	spelled map[string]string
}

// known returns the table of the xray-core that this module embeds.
var known = sync.OnceValue(func() *Table {
	table, err := Parse(file)
	if err != nil {
		panic(fmt.Sprintf("the embedded table of Xray's members: %v; make it again with 'go generate ./xray/members'", err))
	}
	return table
})

// Parse reads a table.
func Parse(raw []byte) (*Table, error) {
	var table Table
	if err := json.Unmarshal(raw, &table); err != nil {
		return nil, fmt.Errorf("read the table of Xray's members: %w", err)
	}
	for i := range table.Types {
		t := &table.Types[i]
		t.spelled = make(map[string]string, len(t.Members)+len(t.Passed))
		for name := range t.Members {
			t.spelled[strings.ToLower(name)] = name
		}
		for _, name := range t.Passed {
			t.spelled[strings.ToLower(name)] = name
		}
	}
	return &table, nil
}
