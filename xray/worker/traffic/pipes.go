package traffic

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sparePipes is how many empty pipes are kept for later. A mover has a pipe only while
	// bytes come, so that few pipes serve many streams.
	sparePipes = 64
	// pipeSize is what a pipe holds, in bytes. Linux makes pipes of 64 KiB, which costs
	// a third more processor time.
	pipeSize = 1 << 20
	// spliceFlags makes splice(2) return EAGAIN where it would have to wait.
	spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
)

// spare has the empty pipes of the process.
var spare = make(chan *kernelPipe, sparePipes)

// kernelPipe is a pipe through which the kernel moves bytes from one socket to another.
type kernelPipe struct{ read, write int }

// takePipe returns an empty pipe. The caller puts it back or closes it.
func takePipe() (*kernelPipe, error) {
	select {
	case p := <-spare:
		return p, nil
	default:
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	// Without root it fails if the user has many large pipes: a smaller one serves, too.
	_, _ = unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, pipeSize)
	return &kernelPipe{read: ends[0], write: ends[1]}, nil
}

// putBack keeps a pipe, which must be empty, for later.
func (p *kernelPipe) putBack() {
	select {
	case spare <- p:
	default:
		p.close()
	}
}

func (p *kernelPipe) close() {
	_ = unix.Close(p.read)
	_ = unix.Close(p.write)
}

// splice moves at most n bytes. It returns 0 and no error at the end of from.
func splice(from, to, n int) (int, error) {
	for {
		moved, err := unix.Splice(from, nil, to, nil, n, spliceFlags)
		if !errors.Is(err, unix.EINTR) {
			return int(max(moved, 0)), err
		}
	}
}

// mover moves bytes from one socket to another, in steps: fill, then empty. One goroutine uses
// it.
type mover struct {
	from, to syscall.RawConn
	pipe     *kernelPipe // nil while it waits for bytes
	inPipe   int

	most  int // see fill
	until time.Time
	err   error
	// The methods as values, so that a step allocates nothing.
	tryFill, tryEmpty func(fd uintptr) bool
}

func newMover(from, to syscall.RawConn) *mover {
	m := &mover{from: from, to: to}
	m.tryFill, m.tryEmpty = m.fillOnce, m.emptyOnce
	return m
}

// errNotNow is what fill returns if it moved nothing, and the bytes should be read instead.
var errNotNow = errors.New("no splice now")

// fill takes at most most bytes from the first socket, and waits until there are some. It
// returns how many it has taken; io.EOF after the last one; errNotNow for what comes after
// until, or if no descriptor is free for a pipe.
func (m *mover) fill(most int, until time.Time) (int, error) {
	m.most, m.until, m.err = most, until, nil
	if err := m.from.Read(m.tryFill); err != nil {
		return 0, err
	}
	return m.inPipe, m.err
}

func (m *mover) fillOnce(fd uintptr) bool {
	if time.Now().After(m.until) {
		m.err = errNotNow
		return true
	}
	if m.pipe == nil {
		var err error
		if m.pipe, err = takePipe(); err != nil {
			m.err = errNotNow
			return true
		}
	}
	m.inPipe, m.err = splice(int(fd), m.pipe.write, m.most)
	switch {
	case errors.Is(m.err, unix.EAGAIN):
		m.release()
		return false
	case m.err == nil && m.inPipe == 0:
		m.err = io.EOF
	}
	return true
}

// empty gives all that fill has taken to the second socket. It waits for room in its buffer.
func (m *mover) empty() error {
	m.err = nil
	if err := m.to.Write(m.tryEmpty); err != nil {
		return err
	}
	return m.err
}

func (m *mover) emptyOnce(fd uintptr) bool {
	for m.inPipe > 0 {
		n, err := splice(m.pipe.read, int(fd), m.inPipe)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			m.err = fmt.Errorf("splice to the client: %w", err)
			return true
		case n == 0:
			m.err = io.ErrShortWrite
			return true
		}
		m.inPipe -= n
	}
	return true
}

// release gives the pipe away. Bytes that are in it are lost.
func (m *mover) release() {
	switch {
	case m.pipe == nil:
	case m.inPipe == 0:
		m.pipe.putBack()
	default:
		m.pipe.close()
	}
	m.pipe, m.inPipe = nil, 0
}
