package e2e

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Target is a server behind the tunnel that counts the bytes it gets and sends. A client sends
// two numbers, the bytes up and the bytes down (uint64, big endian). The target reads the first
// number of bytes, sends the second number, and waits for the next two numbers.
type Target struct {
	listener net.Listener
	up, down atomic.Int64
	open     atomic.Int64 // connections
	conns    sync.WaitGroup
}

// NewTarget listens on loopback.
func NewTarget() (*Target, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	t := &Target{listener: l}
	t.accept(t.Serve)
	return t, nil
}

// accept serves each connection until the target is closed.
func (t *Target) accept(serve func(net.Conn)) {
	go func() {
		for {
			conn, err := t.listener.Accept()
			if err != nil {
				return
			}
			t.conns.Go(func() { serve(conn) })
		}
	}()
}

// Addr returns the host and port on which the target listens.
func (t *Target) Addr() string { return t.listener.Addr().String() }

// Traffic returns how many bytes the target got and sent.
func (t *Target) Traffic() Traffic { return Traffic{t.up.Load(), t.down.Load()} }

// allEnded returns an error while connections are open.
func (t *Target) allEnded() error {
	if n := t.open.Load(); n > 0 {
		return fmt.Errorf("%d connections to the target are open", n)
	}
	return nil
}

// Close closes the listener.
func (t *Target) Close() error { return t.listener.Close() }

// Serve serves the requests of one connection until it ends, and closes it.
func (t *Target) Serve(conn net.Conn) {
	t.open.Add(1)
	defer t.open.Add(-1)
	defer conn.Close()
	in := bufio.NewReaderSize(countingReader{conn, &t.up}, 64<<10)
	var question [16]byte
	for {
		if _, err := io.ReadFull(in, question[:]); err != nil {
			return
		}
		up, down := binary.BigEndian.Uint64(question[:8]), binary.BigEndian.Uint64(question[8:])
		if _, err := io.CopyN(io.Discard, in, int64(up)); err != nil {
			return
		}
		if _, err := io.CopyN(countingWriter{conn, &t.down}, zeros{}, int64(down)); err != nil {
			return
		}
	}
}

// Exchange asks a target over conn, sends up bytes and reads down bytes.
func Exchange(conn net.Conn, up, down int64) error {
	var question [16]byte
	binary.BigEndian.PutUint64(question[:8], uint64(up))
	binary.BigEndian.PutUint64(question[8:], uint64(down))
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(question[:])
		if err == nil {
			_, err = io.CopyN(conn, zeros{}, up)
		}
		sent <- err
	}()
	_, err := io.CopyN(io.Discard, conn, down)
	return errors.Join(<-sent, err)
}

type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (r countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

type countingWriter struct {
	io.Writer
	n *atomic.Int64
}

// Write counts before it writes: a peer that has read the last byte finds it counted.
func (w countingWriter) Write(p []byte) (int, error) {
	w.n.Add(int64(len(p)))
	n, err := w.Writer.Write(p)
	w.n.Add(int64(n - len(p)))
	return n, err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
