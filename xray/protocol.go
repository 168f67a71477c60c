package xray

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// The daemon and the worker speak in frames over a unix socket pair that the
// worker inherits as WorkerFD: four bytes of length (big endian), then one
// JSON value. The daemon sends Requests, the worker Messages. The first
// request is a Boot. The worker ends when the socket does.

// frameOptions take in text all that encoding/json would: it may quote anything.
var frameOptions = jsonv2.JoinOptions(
	jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true), jsonv1.FormatDurationAsNano(true),
)

// WorkerFD is the descriptor under which the worker finds its socket.
const WorkerFD = 3

// maxFrame bounds what one side makes the other hold; ten thousand users with
// their accounts are about 2 MiB.
const maxFrame = 64 << 20

// Request is what the daemon asks of the worker; one of its members is set.
type Request struct {
	ID        uint64     `json:"id"`
	Boot      *Boot      `json:"boot,omitzero"`
	Operation *Operation `json:"operation,omitzero"`
	Ping      bool       `json:"ping,omitzero"`
	// Drain closes the listeners. The worker goes on until its last stream has
	// ended, or the time is over, and then ends.
	Drain *Drain `json:"drain,omitzero"`
}

// Boot starts an empty instance.
type Boot struct {
	Counters string `json:"counters"` // path of the counters file
	Base     Base   `json:"base"`
	// Held is where another worker of this daemon listens: those ports are
	// shared until that one is drained.
	Held []Binding `json:"held,omitzero"`
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
	ID     uint64          `json:"id,omitzero"`
	Error  *OperationError `json:"error,omitzero"`
	Info   *WorkerInfo     `json:"info,omitzero"` // answers Boot and Ping
	Event  *Presence       `json:"event,omitzero"`
	Closed []uint32        `json:"closed,omitzero"` // slots of removed clients that nothing counts to any more
	Notice *Notice         `json:"notice,omitzero"`
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

// FailureCode tells what kind of failure an OperationError is.
type FailureCode string

// The failure codes of the worker.
const (
	FailureInvalid   FailureCode = "invalid"     // the configuration is wrong
	FailurePortInUse FailureCode = "port_in_use" // another process holds the port
	FailureOther     FailureCode = "failed"
)

// OperationError is why the worker could not do what it was asked. The worker
// is as it was before.
type OperationError struct {
	Code    FailureCode `json:"code"`
	Tag     string      `json:"tag,omitzero"`
	Port    uint16      `json:"port,omitzero"`
	Message string      `json:"message"`
	Stack   string      `json:"stack,omitzero"` // of a panic: for the log, and not for Core
}

func (e *OperationError) Error() string { return e.Message }

// FrameConn reads and writes frames. Reads are for one goroutine, writes for
// any number.
type FrameConn struct {
	// WriteTimeout bounds one Write; 0 for none. Set it before the first.
	WriteTimeout time.Duration

	conn net.Conn
	in   *bufio.Reader
	mu   sync.Mutex // guards writes
}

// NewFrameConn speaks in frames over conn, which it closes with itself.
func NewFrameConn(conn net.Conn) *FrameConn {
	return &FrameConn{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
}

// errNotSent means that nothing of a frame was sent: the conversation can go on.
var errNotSent = errors.New("send to the worker")

// Write sends v as one frame.
func (c *FrameConn) Write(v any) error {
	body, err := jsonv2.Marshal(v, frameOptions)
	if err != nil {
		return fmt.Errorf("%w: encode frame: %w", errNotSent, err)
	}
	if len(body) > maxFrame {
		return fmt.Errorf("%w: a frame of %d bytes, the most is %d", errNotSent, len(body), maxFrame)
	}
	frame := net.Buffers{binary.BigEndian.AppendUint32(nil, uint32(len(body))), body}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.WriteTimeout > 0 {
		if err := c.conn.SetWriteDeadline(time.Now().Add(c.WriteTimeout)); err != nil {
			return fmt.Errorf("send frame: %w", err)
		}
	}
	if _, err := frame.WriteTo(c.conn); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// Read receives one frame into v; io.EOF means that the other side has ended.
func (c *FrameConn) Read(v any) error {
	body, err := c.ReadFrame()
	if err != nil {
		return err
	}
	return DecodeFrame(body, v)
}

// ReadFrame receives one frame, for DecodeFrame; io.EOF means that the other side has
// ended.
func (c *FrameConn) ReadFrame() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return nil, fmt.Errorf("receive frame of %d bytes: the most is %d", size, maxFrame)
	}
	// The length is the other side's word: memory follows the bytes that come.
	body, err := io.ReadAll(io.LimitReader(c.in, int64(size)))
	if err != nil {
		return nil, fmt.Errorf("receive frame: %w", err)
	}
	if len(body) < int(size) {
		return nil, fmt.Errorf("receive frame: %w", io.ErrUnexpectedEOF)
	}
	return body, nil
}

// DecodeFrame reads a frame into v.
func DecodeFrame(body []byte, v any) error {
	if err := jsonv2.Unmarshal(body, v, frameOptions); err != nil {
		return fmt.Errorf("decode frame: %w", err)
	}
	return nil
}

// CloseWrite tells the other side that nothing more comes; what it still says
// can be read.
func (c *FrameConn) CloseWrite() error {
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.conn.Close()
}

// Close ends the conversation.
func (c *FrameConn) Close() error { return c.conn.Close() }
