// Package logkey has the keys of log attributes. One thing has one key in the logs of all
// packages, so that an operator can search for it.
package logkey

// Failures, and their number.
const (
	Error    = "error"
	Code     = "code"     // of a failure, as Core is told it
	Failures = "failures" // of the same thing, in a row
	Attempt  = "attempt"  // number of a retry; 1 for the first
	NextIn   = "next_in"  // duration until the next try
	Crashes  = "crashes"  // of the worker, in a row
	Reason   = "reason"
	Problem  = "problem"
	Warning  = "warning"
	Advice   = "advice" // what an operator should do
	Panic    = "panic"
	Stack    = "stack"
	Output   = "output" // the last words of a process
	Line     = "line"   // of a process's output
	Lines    = "lines"  // how many
)

// The thing that a line is about.
const (
	Component = "component" // the package that logs
	Version   = "version"   // of a program
	Build     = "build"     // of the worker that the line is about
	ThisBuild = "this_build"
	Node      = "node"     // id
	Core      = "core"     // address
	Name      = "name"     // of a worker, or of a socket
	Before    = "before"   // the value before a change
	Epoch     = "epoch"    // of Core: raised when its database was restored
	Request   = "request"  // what Core was asked for
	Route     = "route"    // method and path
	Path      = "path"     // of a route
	Status    = "status"   // of an HTTP answer
	Detail    = "detail"   // of a problem that a request was answered with
	Message   = "message"  // of a node
	Host      = "host"     // of a node, as it registered
	IP        = "ip"       // of a node, as it registered
	From      = "from"     // the value before a change, or the address of a peer
	Form      = "form"     // of a subscription's link
	Settings  = "settings" // names
	Loop      = "loop"     // of the daemon, for its watchdog
	Revision  = "revision"
	BackTo    = "back_to"   // revision that runs again
	Operation = "operation" // its kind, or its name in the API
	Tag       = "tag"       // of an inbound or outbound
	Inbound   = "inbound"   // its tag, or inbounds without one
	Inbounds  = "inbounds"  // how many
	Port      = "port"
	Clients   = "clients" // how many
	Users     = "users"   // how many
	ByInbound = "by_inbound"
	Kind      = "kind"   // of a batch
	Bucket    = "bucket" // of the state file
	ID        = "id"     // of what is set aside
	Rows      = "rows"   // of a batch
	File      = "file"
	Webhook   = "webhook" // id
	Event     = "event"   // id
	Events    = "events"  // how many
	Trial     = "trial"   // telemt runs only to judge a configuration
)

// Processes and their times.
const (
	PID         = "pid"
	OldPID      = "old_pid"
	Workers     = "workers" // how many
	StartedAt   = "started_at"
	SilentSince = "silent_since"
	Draining    = "draining"
	Timeout     = "timeout"
	Within      = "within" // duration
	For         = "for"    // duration
)

// Where a program listens, and where its files are.
const (
	Listen    = "listen"
	PublicURL = "public_url"
	DataDir   = "data_dir"
)

// Amounts, in bytes where nothing else is said.
const (
	Up            = "up"
	Down          = "down"
	UsedBytes     = "used_bytes"
	AsideDropped  = "aside_dropped"  // batches
	EventsDropped = "events_dropped" // session events
	Dropped       = "dropped"        // messages of a worker
	Seconds       = "seconds"

	Connections       = "connections"         // that were refused
	AtConnectionLimit = "at_connection_limit" // streams that were refused
	AtAddressLimit    = "at_address_limit"    // streams that were refused
	OfStrangers       = "of_strangers"        // streams that were refused
)
