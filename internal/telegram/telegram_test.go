package telegram

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

func TestBothEndsUnderstandEachOther(t *testing.T) {
	secrets := [][]byte{bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 16)}
	for name, c := range map[string]struct {
		secret []byte
		known  [][]byte
		want   int
		err    error
	}{
		"the second secret":      {secrets[1], secrets, 1, nil},
		"an unknown secret":      {bytes.Repeat([]byte{3}, 16), secrets, 0, ErrUnknownSecret},
		"none, as to a centre":   {nil, nil, -1, nil},
		"one where none is used": {secrets[0], nil, 0, ErrUnknownSecret},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			defer far.Close()
			opened := make(chan net.Conn, 1)
			go func() {
				stream, err := Open(near, c.secret, 2)
				if err != nil {
					t.Error(err)
				}
				opened <- stream
			}()
			accepted, i, err := Accept(far, c.known)
			if !errors.Is(err, c.err) || i != c.want {
				t.Fatalf("accepted secret %d, %v; want %d, %v", i, err, c.want, c.err)
			}
			if err != nil {
				return
			}
			stream := <-opened
			for _, way := range [][2]net.Conn{{stream, accepted}, {accepted, stream}} {
				go func() { _, _ = way[0].Write([]byte("some words")) }()
				got := make([]byte, 10)
				if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "some words" {
					t.Fatalf("%q arrived, %v", got, err)
				}
			}
		})
	}
}
