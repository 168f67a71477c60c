package ipc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// frameOptions accept in strings whatever encoding/json accepts: a message may quote any
// bytes. Raw JSON without white space arrives byte for byte as it was sent, so that both sides
// can compare what they have.
var frameOptions = jsonv2.JoinOptions(
	jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true), jsontext.PreserveRawStrings(true), jsonv1.FormatDurationAsNano(true),
)

// maxFrame is the most that the value of one frame may have, in bytes. It bounds the memory
// that one side can make the other use. Ten thousand users with their accounts are about
// 2 MiB.
const maxFrame = 64 << 20

// FrameConn reads and writes frames over a connection. One goroutine may read; any number
// may write.
//
// A Write that fails with [ErrNotSent] has sent nothing, so the connection is still usable.
// After any other error of Write, Read or ReadFrame the place of the next frame is unknown:
// close the connection. An error of DecodeFrame leaves the connection usable.
type FrameConn struct {
	// WriteTimeout is how long one Write may take; 0 for no bound. Set it before the first
	// Write.
	WriteTimeout time.Duration
	// Compact tells that the other side is of the same build, and reads compact frames: see users.go.
	// Set it before the first Write of an operation.
	Compact bool

	conn net.Conn
	in   *bufio.Reader
	mu   sync.Mutex // guards writes
}

// NewFrameConn returns a FrameConn over conn. Close closes conn too.
func NewFrameConn(conn net.Conn) *FrameConn {
	return &FrameConn{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
}

// ErrNotSent means that no byte of a frame was sent, so the connection is still usable: the
// value could not be encoded, or is larger than a frame may be.
var ErrNotSent = errors.New("send to the worker")

// Write sends v as one frame. It returns an error that wraps ErrNotSent where v cannot be
// encoded or is too large.
func (c *FrameConn) Write(v any) error {
	frame, err := c.encode(v)
	if err != nil {
		return fmt.Errorf("%w: encode frame: %w", ErrNotSent, err)
	}
	size := 0
	for _, part := range frame {
		size += len(part)
	}
	if size > maxFrame {
		return fmt.Errorf("%w: a frame of %d bytes, the most is %d", ErrNotSent, size, maxFrame)
	}
	frame = append(net.Buffers{binary.BigEndian.AppendUint32(nil, uint32(size))}, frame...)
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

// encode returns the parts of the value of a frame.
func (c *FrameConn) encode(v any) (net.Buffers, error) {
	if r, is := isCompact(v); is && c.Compact {
		return appendCompact(nil, r)
	}
	body, err := jsonv2.Marshal(v, frameOptions)
	return net.Buffers{body}, err
}

// Read receives one frame and decodes it into v. It returns io.EOF where the other side has
// closed the connection between two frames.
func (c *FrameConn) Read(v any) error {
	body, err := c.ReadFrame()
	if err != nil {
		return err
	}
	return DecodeFrame(body, v)
}

// ReadFrame receives one frame and returns its value undecoded, for DecodeFrame. It returns
// io.EOF where the other side has closed the connection between two frames. The caller owns
// the slice.
func (c *FrameConn) ReadFrame() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return nil, fmt.Errorf("receive frame of %d bytes: the most is %d", size, maxFrame)
	}
	body, err := c.readBody(int(size))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("receive frame: %w", err)
	}
	return body, nil
}

// believed is how many bytes of a frame have to arrive before its length is believed, which alone could
// name 64 MiB.
const believed = 256 << 10

// readBody reads a body of size bytes. Memory that grows with what arrives would take five times as much for
// many clients, and all of it before the first garbage is collected.
func (c *FrameConn) readBody(size int) ([]byte, error) {
	begin := make([]byte, min(size, believed))
	if _, err := io.ReadFull(c.in, begin); err != nil || len(begin) == size {
		return begin, err
	}
	body := make([]byte, size)
	_, err := io.ReadFull(c.in, body[copy(body, begin):])
	return body, err
}

// DecodeFrame decodes the value of a frame into v.
func DecodeFrame(body []byte, v any) error {
	if r, is := v.(*Request); is && len(body) > 0 && body[0] == compactFrame {
		return decodeCompact(body[1:], r)
	}
	if err := jsonv2.Unmarshal(body, v, frameOptions); err != nil {
		return fmt.Errorf("decode frame: %w", err)
	}
	return nil
}

// CloseWrite tells the other side that no more frames come. Frames of the other side can
// still be read. Where the connection cannot be closed in one direction it is closed in
// both.
func (c *FrameConn) CloseWrite() error {
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.conn.Close()
}

// Within bounds all reads and writes from now on; a zero time ends the bound. A WriteTimeout
// replaces it for writes.
func (c *FrameConn) Within(deadline time.Time) error { return c.conn.SetDeadline(deadline) }

// Close closes the connection.
func (c *FrameConn) Close() error { return c.conn.Close() }
