package ipc

import (
	"net/netip"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// The daemon and the worker speak in frames over a unix socket pair that the
// worker inherits as WorkerFD: four bytes of length (big endian), then one
// JSON value. The daemon sends Requests, the worker Messages. The first
// request is a Boot. The worker ends when the socket does.

// WorkerFD is the descriptor under which the worker finds its socket.
const WorkerFD = 3

// Request is what the daemon asks of the worker; one of its members is set.
type Request struct {
	ID        uint64           `json:"id"`
	Boot      *Boot            `json:"boot,omitzero"`
	Operation *state.Operation `json:"operation,omitzero"`
	Ping      bool             `json:"ping,omitzero"`
	// Drain closes the listeners. The worker goes on until its last stream has
	// ended, or the time is over, and then ends.
	Drain *Drain `json:"drain,omitzero"`
}

// Boot starts an empty instance.
type Boot struct {
	Counters string     `json:"counters"` // path of the counters file
	Base     state.Base `json:"base"`
	// Held is where another worker of this daemon listens: those ports are
	// shared until that one is drained.
	Held []state.Binding `json:"held,omitzero"`
	// CrashOutput is the path of the file that gets Go's words should the worker
	// panic; empty for none.
	CrashOutput string `json:"crashOutput,omitzero"`
	// DryRun builds everything, tries the ports, and listens on nothing.
	DryRun bool `json:"dryRun,omitzero"`
	// BaseRuns tells a dry run that the node has this Base already.
	BaseRuns bool `json:"baseRuns,omitzero"`
}

// Drain bounds how long a worker without listeners lives on.
type Drain struct {
	Timeout time.Duration `json:"timeout"`
}

// Message is what the worker tells: the answer to the request of that ID, or
// an event, whose ID is 0.
type Message struct {
	ID     uint64       `json:"id,omitzero"`
	Error  *fault.Fault `json:"error,omitzero"`
	Info   *WorkerInfo  `json:"info,omitzero"` // answers Boot and Ping
	Event  *Presence    `json:"event,omitzero"`
	Closed []uint32     `json:"closed,omitzero"` // slots of removed clients that nothing counts to any more
	Notice *Notice      `json:"notice,omitzero"`
}

// Notice is something that the worker found by itself and that harms nobody yet,
// as a file that it could not take.
type Notice struct {
	Tag     string `json:"tag,omitzero"`
	Message string `json:"message"`
}

// WorkerInfo tells how a worker is.
type WorkerInfo struct {
	XrayVersion string  `json:"xrayVersion"`
	Processors  int     `json:"processors"` // Go's GOMAXPROCS
	Goroutines  int     `json:"goroutines"`
	Streams     int64   `json:"streams"` // open proxied streams
	Refused     Refused `json:"refused"`
	HeldBack    float64 `json:"heldBackSeconds"` // how long streams waited for their rates, all together
	// Exhausted says that the worker had no file descriptor left since its last answer;
	// empty where it had.
	Exhausted string `json:"exhausted,omitzero"`
}

// Refused counts the streams that were refused since the worker started.
type Refused struct {
	Connections int64 `json:"connections"` // the client had as many open as it may
	Addresses   int64 `json:"addresses"`   // the client came from as many as it may
	Strangers   int64 `json:"strangers"`   // a client that was removed, or never was
}

// Presence tells that a client's first stream from an address began or that
// the last one ended.
type Presence struct {
	Slot   uint32     `json:"slot"`
	IP     netip.Addr `json:"ip"`
	Online bool       `json:"online"`
	At     time.Time  `json:"at"`
}
