// Package logkey has the keys of log attributes. One thing has one key in the logs of all
// packages, so that an operator can search for it.
package logkey

// What went wrong, and how often.
const (
	Error    = "error"
	Code     = "code"     // of a failure, as Core is told it
	Failures = "failures" // of the same thing, in a row
	Attempt  = "attempt"  // number of a retry; 1 for the first
	NextIn   = "next_in"  // duration until the next try
	Crashes  = "crashes"  // of the worker, in a row
)

// What it is about.
const (
	Component = "component" // the package that logs
	Version   = "version"   // of this program
	Node      = "node"      // id
	Core      = "core"      // address
	Before    = "before"    // the value before a change
	Epoch     = "epoch"     // of Core: raised when its database was restored
	Request   = "request"   // what Core was asked for
	Route     = "route"     // method and path
	Path      = "path"      // of a route
	Revision  = "revision"
	BackTo    = "back_to"  // revision that runs again
	Tag       = "tag"      // of an inbound or outbound
	Inbounds  = "inbounds" // how many
	Clients   = "clients"  // how many
	ByInbound = "by_inbound"
	Kind      = "kind"   // of a batch
	Bucket    = "bucket" // of the state file
	ID        = "id"     // of what is set aside
	Rows      = "rows"   // of a batch
)

// Amounts, in bytes where nothing else is said.
const (
	Up            = "up"
	Down          = "down"
	UsedBytes     = "used_bytes"
	AsideDropped  = "aside_dropped"  // batches
	EventsDropped = "events_dropped" // session events
)
