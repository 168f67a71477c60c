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

// frameOptions take in text all that encoding/json would: it may quote anything.
var frameOptions = jsonv2.JoinOptions(
	jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true), jsonv1.FormatDurationAsNano(true),
)

// maxFrame bounds what one side makes the other hold; ten thousand users with
// their accounts are about 2 MiB.
const maxFrame = 64 << 20

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

// ErrNotSent means that nothing of a frame was sent: the conversation can go on.
var ErrNotSent = errors.New("send to the worker")

// Write sends v as one frame.
func (c *FrameConn) Write(v any) error {
	body, err := jsonv2.Marshal(v, frameOptions)
	if err != nil {
		return fmt.Errorf("%w: encode frame: %w", ErrNotSent, err)
	}
	if len(body) > maxFrame {
		return fmt.Errorf("%w: a frame of %d bytes, the most is %d", ErrNotSent, len(body), maxFrame)
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
