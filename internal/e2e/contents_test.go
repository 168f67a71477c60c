package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
)

// newContentTarget is a target whose answer is made of the bytes that it got, so that a byte
// that is changed, lost or moved in either direction is found out.
func (w *world) newContentTarget() *Target {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(w.t, err)
	target := &Target{listener: l}
	target.accept(target.serveContents)
	w.t.Cleanup(func() { must(w.t, target.Close()) })
	return target
}

// serveContents answers as Serve does, with the bytes that follow from those that it got.
func (t *Target) serveContents(conn net.Conn) {
	t.open.Add(1)
	defer t.open.Add(-1)
	defer conn.Close()
	in := bufio.NewReaderSize(countingReader{conn, &t.up}, 64<<10)
	var question [16]byte
	for {
		if _, err := io.ReadFull(in, question[:]); err != nil {
			return
		}
		sum := sha256.New()
		sum.Write(question[:])
		if _, err := io.CopyN(sum, in, int64(binary.BigEndian.Uint64(question[:8]))); err != nil {
			return
		}
		if _, err := io.CopyN(countingWriter{conn, &t.down}, following(sum.Sum(nil)), int64(binary.BigEndian.Uint64(question[8:]))); err != nil {
			return
		}
	}
}

// following are endless bytes that follow from a seed of 32 bytes.
func following(seed []byte) io.Reader { return rand.NewChaCha8([32]byte(seed)) }

// exchangeContents is Exchange with a content target. It sends random bytes and compares every
// byte of the answer.
func exchangeContents(conn net.Conn, up, down int64) error {
	sent := make([]byte, 16+up)
	binary.BigEndian.PutUint64(sent[:8], uint64(up))
	binary.BigEndian.PutUint64(sent[8:], uint64(down))
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], rand.Uint64())
	if _, err := io.ReadFull(rand.NewChaCha8(seed), sent[16:]); err != nil {
		return err
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		wrote <- err
	}()
	got := make([]byte, down)
	n, err := io.ReadFull(conn, got)
	if err = errors.Join(<-wrote, err); err != nil {
		return fmt.Errorf("%d of %d bytes came back: %w", n, down, err)
	}
	want, sum := make([]byte, down), sha256.Sum256(sent)
	if _, err := io.ReadFull(following(sum[:]), want); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("the %d bytes that came back are others than the target sends to these %d bytes", down, up)
	}
	return nil
}
