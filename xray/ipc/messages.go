package ipc

import (
	"bytes"
	"net/netip"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/grant"
	"nodeagent/xray/state"
)

// Request is what the daemon asks of the worker. Exactly one of its members is set, besides ID.
type Request struct {
	ID   uint64 `json:"id"`
	Boot *Boot  `json:"boot,omitzero"`
	// Adopt is the first request of a daemon that did not start the worker.
	Adopt     *Adopt           `json:"adopt,omitzero"`
	Operation *state.Operation `json:"operation,omitzero"`
	Ping      bool             `json:"ping,omitzero"`
	// Clients asks for clients of an inbound. The worker answers after the operations that
	// came before.
	Clients *ClientsPage `json:"clients,omitzero"`
	// End ends the worker, after the operations that came before. It gets no answer.
	End bool `json:"end,omitzero"`
	// Drain closes the listeners; the worker answers once they are closed. The worker
	// serves the streams that are open, and ends after the last of them or after
	// Drain.Timeout.
	Drain *Drain `json:"drain,omitzero"`
	// File is the daemon's answer to Message.Read. Such a request has no ID and no answer.
	File *File `json:"file,omitzero"`
}

// ReadFile asks the daemon for the contents of a file that an operation named. The worker may not
// open it.
type ReadFile struct {
	ID   uint64 `json:"id"`
	Path string `json:"path"`
}

// File has the contents of a file, or says why there are none.
type File struct {
	ID       uint64 `json:"id"`
	Contents []byte `json:"contents,omitzero"`
	Error    string `json:"error,omitzero"`
	Missing  bool   `json:"missing,omitzero"` // there is no such file
}

// IsFile tells a frame with a File from the others, without decoding it.
func IsFile(body []byte) bool { return bytes.HasPrefix(body, []byte(`{"id":0,"file":`)) }

// Boot starts an xray-core instance without inbounds, outbounds and routing. The daemon
// then sends operations that lead to the state it wants.
type Boot struct {
	Counters string     `json:"counters"` // path of the counters file
	Base     state.Base `json:"base"`
	// Held are the bindings of another worker of this daemon, which drains. The new worker
	// shares these ports with it until the other one has closed them.
	Held []state.Binding `json:"held,omitzero"`
	// CrashOutput is the path of the file into which Go writes the message and the stacks
	// of a panic; empty for no file.
	CrashOutput string `json:"crashOutput,omitzero"`
	// ResetKey is secret, has 32 bytes, and is the same in every worker of this node: the key
	// of the stateless resets of QUIC (RFC 9000 section 10.3). Empty for no resets.
	ResetKey []byte `json:"resetKey,omitzero"`
	// ClientNetworks are the networks of the node itself that clients may reach.
	ClientNetworks []netip.Prefix `json:"clientNetworks,omitzero"`
	// ReadFolders and SocketFolders are the folders that the worker may use besides the ones of
	// every worker: to read files, and to make unix sockets.
	ReadFolders   []string `json:"readFolders,omitzero"`
	SocketFolders []string `json:"socketFolders,omitzero"`
	// IPv6Prefix is how many bits of an IPv6 address limitIps counts by; 0 for the default.
	IPv6Prefix int `json:"ipv6Prefix,omitzero"`
	// NetAdmin is true for a worker that keeps CAP_NET_ADMIN, if it has it.
	NetAdmin bool `json:"netAdmin,omitzero"`
	// DryRun is true for a worker that builds everything and tries whether the ports are
	// free, and that neither listens nor counts.
	DryRun bool `json:"dryRun,omitzero"`
	// Settings stands for what of Boot, and of the process's environment, does not change while the
	// worker runs. The worker only repeats it, in Running.
	Settings string `json:"settings,omitzero"`
	// Orphan says how the worker goes on without a daemon. A dry run ends with its daemon.
	Orphan Orphan `json:"orphan,omitzero"`
	// Beside is true for a worker that takes over from another one, which serves meanwhile: memory is scarcer
	// than time then.
	Beside bool `json:"beside,omitzero"`
	// BaseRuns is true where the node already runs this Base. A dry run then does not check
	// its members: the check may be newer than the configuration.
	BaseRuns bool `json:"baseRuns,omitzero"`
}

// Orphan says how a worker goes on after its daemon has died: it serves for Timeout, then closes
// its listeners, and ends with its last stream or after Drain. With a Timeout of zero it ends with
// the daemon.
type Orphan struct {
	Timeout time.Duration `json:"timeout"` // nanoseconds in JSON
	Drain   time.Duration `json:"drain"`
}

// Adopt asks a worker that an earlier daemon has started for what it runs.
type Adopt struct {
	// Epoch is that of the counters that the daemon reads. A worker that counts into another
	// file refuses.
	Epoch  string `json:"epoch"`
	Orphan Orphan `json:"orphan"`
}

// Running is what a worker runs, at one moment between two operations.
type Running struct {
	// State has no clients, and only the inbounds that listen.
	State state.State `json:"state"`
	// Clients has the clients of each inbound, by its tag; also of inbounds that listen no
	// longer and whose streams go on.
	Clients map[string]state.Sum `json:"clients,omitzero"`
	// Closing are the slots of removed clients that still have streams. The worker sends
	// Message.Closed for each.
	Closing []uint32 `json:"closing,omitzero"`
	// Online has who is online, each with the time at which the first stream began. Messages
	// with presence that come after this one are later.
	Online []Presence `json:"online,omitzero"`
	// Draining tells that the listeners are closed for ever.
	Draining bool `json:"draining,omitzero"`
	// StartedAt is when the worker was booted.
	StartedAt   time.Time `json:"startedAt"`
	CrashOutput string    `json:"crashOutput,omitzero"` // Boot.CrashOutput
	Settings    string    `json:"settings,omitzero"`    // Boot.Settings
	// Dropped counts the messages that were dropped since the daemon before went: more than
	// the worker keeps.
	Dropped int `json:"dropped,omitzero"`
}

// ClientsPage asks for clients of the inbound Tag, in the order of their Email: those that come
// after the client After.
type ClientsPage struct {
	Tag   string `json:"tag"`
	After string `json:"after,omitzero"`
}

// MaxClientsPage is the most clients that an answer to ClientsPage has. Fewer are the last.
const MaxClientsPage = 50_000

// ClientMark is one client of a worker, without its account.
type ClientMark struct {
	Email  string       `json:"email"`
	Slot   uint32       `json:"slot"`
	Mark   uint64       `json:"mark"` // state.Client.Mark
	Limits state.Limits `json:"limits,omitzero"`
	Group  string       `json:"group,omitzero"`
	Grant  *grant.Grant `json:"grant,omitzero"`
}

// Drain says how long a worker serves open streams after its listeners are closed.
type Drain struct {
	Timeout time.Duration `json:"timeout"` // nanoseconds in JSON
}

// Message is what the worker sends: the answer to the request with the same ID, or an event
// with the ID 0. An answer has Error, or Info (after Boot and Ping), or Running (after Adopt), or
// Clients, or none, which means that an operation or a drain succeeded. An event has
// Presence, Closed or both, or Notice, or Line, or
// Read. Where it has both, the presence is the earlier one.
type Message struct {
	ID    uint64       `json:"id,omitzero"`
	Error *fault.Fault `json:"error,omitzero"`
	Info  *WorkerInfo  `json:"info,omitzero"`
	// Presence are changes of several clients, in their order.
	Presence []Presence `json:"presence,omitzero"`
	// Closed are slots of removed clients. The worker sends a slot once no stream counts
	// into it any more, so that the daemon can read the last value and free it.
	Closed []uint32 `json:"closed,omitzero"`
	Notice *Notice  `json:"notice,omitzero"`
	// Line is a line of xray-core's log.
	Line    string       `json:"line,omitzero"`
	Running *Running     `json:"running,omitzero"`
	Clients []ClientMark `json:"clients,omitzero"`
	// Read asks for a file: see Request.File.
	Read *ReadFile `json:"read,omitzero"`
}

// Notice is a problem that the worker found by itself and that ends no service, for example
// a renewed certificate that it could not read.
type Notice struct {
	Tag     string `json:"tag,omitzero"` // of the inbound; empty where it concerns none
	Message string `json:"message"`
}

// WorkerInfo describes a worker at one moment.
type WorkerInfo struct {
	XrayVersion string  `json:"xrayVersion"`
	Build       string  `json:"build"`      // see Build
	Processors  int     `json:"processors"` // Go's GOMAXPROCS
	Goroutines  int     `json:"goroutines"`
	Streams     int64   `json:"streams"` // open proxied streams
	Refused     Refused `json:"refused"`
	// RefusedConnections are those that ended before they asked for anything, since the worker
	// started, by the tag of the inbound. Those of Hysteria are wrong auths.
	RefusedConnections map[string]int64 `json:"refusedConnections,omitzero"`
	// HeldBack is how long the rates made streams wait, in seconds, the sum of all streams.
	HeldBack float64 `json:"heldBackSeconds"`
	// Exhausted says that the worker had no file descriptor left since its last answer;
	// empty where it had.
	Exhausted string `json:"exhausted,omitzero"`
	// Confined says what confines the worker to what it needs.
	Confined string `json:"confined,omitzero"`
}

// Refused counts the streams that were refused since the worker started.
type Refused struct {
	Connections int64 `json:"connections"` // the client had as many open as it may
	Addresses   int64 `json:"addresses"`   // the client came from as many as it may
	Grants      int64 `json:"grants"`      // the client's grant was used up or had expired
	Strangers   int64 `json:"strangers"`   // the worker does not know the client, or it was removed
	Node        int64 `json:"node"`        // the client wanted an address of the node itself
}

// Presence says that a client's first stream from an address began (Online), or that the
// last one ended.
type Presence struct {
	Slot   uint32     `json:"slot"`
	IP     netip.Addr `json:"ip"`
	Online bool       `json:"online"`
	At     time.Time  `json:"at"`
}
