package reads

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/xtls/xray-core/common/buf"
	"golang.org/x/sys/unix"
)

// most is how many buffers of 8 KiB one read fills at most, as xray-core's (common/buf/readv_reader.go:25).
const most = 8

// Socket returns a reader of a socket. One goroutine reads. Closing the socket, and its deadlines, end a read.
func Socket(conn *net.TCPConn) (buf.Reader, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("read from %s: %w", conn.RemoteAddr(), err)
	}
	s := &socket{raw: raw, many: 1}
	s.try = s.once
	return s, nil
}

type socket struct {
	raw  syscall.RawConn
	try  func(fd uintptr) bool // once, as a value that is made once
	many int                   // how many buffers a read gets
	// What once has read.
	mb  buf.MultiBuffer
	err error

	parts  [most][]byte
	filler filler
}

// ReadMultiBuffer implements buf.Reader.
func (s *socket) ReadMultiBuffer() (buf.MultiBuffer, error) {
	err := s.raw.Read(s.try)
	mb := s.mb
	if err == nil {
		err = s.err
	}
	s.mb, s.err = nil, nil
	return mb, err
}

// once reads what has come, and tells whether there was something: bytes, the end or an error.
func (s *socket) once(fd uintptr) bool {
	mb := make(buf.MultiBuffer, s.many)
	for i := range mb {
		mb[i] = buf.New()
		s.parts[i] = s.filler.roomOf(mb[i])
	}
	n, err := readv(int(fd), s.parts[:s.many])
	clear(s.parts[:s.many])
	if err != nil || n == 0 {
		buf.ReleaseMulti(mb)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			s.err = os.NewSyscallError("readv", err)
		default:
			s.err = io.EOF
		}
		return true
	}
	used := (n + buf.Size - 1) / buf.Size
	for i, b := range mb {
		if i >= used {
			b.Release()
			mb[i] = nil
			continue
		}
		s.filler.fill(b, min(n, buf.Size))
		n -= int(b.Len())
	}
	if s.mb = mb[:used]; used == s.many && mb[used-1].IsFull() {
		s.many = min(2*s.many, most)
	} else {
		s.many = used
	}
	return true
}

func readv(fd int, into [][]byte) (n int, err error) {
	for {
		if len(into) == 1 {
			n, err = unix.Read(fd, into[0])
		} else {
			n, err = unix.Readv(fd, into)
		}
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// filler reaches the bytes of an empty buffer as the io.Reader from which the buffer reads. Buffer.Extend and
// Buffer.Resize would set all of them to zero.
type filler struct {
	room []byte // where the bytes of the buffer go that asked last
	n    int    // how many bytes a buffer is told to have got
}

func (f *filler) Read(room []byte) (int, error) {
	f.room = room
	return f.n, nil
}

func (f *filler) roomOf(b *buf.Buffer) []byte {
	f.n = 0
	_, _ = b.ReadFrom(f) // it returns no error
	return f.room
}

// fill tells a buffer that there are n bytes in its room.
func (f *filler) fill(b *buf.Buffer, n int) {
	f.n = n
	_, _ = b.ReadFrom(f)
	f.room = nil
}
