package listen

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Bounds of a stranger's visit to a site that REALITY borrows. They are variables for tests.
var (
	// HalfClosedVisit is how long the site may say nothing to a visitor that has sent its last byte.
	HalfClosedVisit = 2 * time.Minute
	// SilentVisit is how long visitor and site may both say nothing. Sites end idle connections
	// themselves, and earlier.
	SilentVisit = 10 * time.Minute
)

const (
	// visitBuffer holds a visitor's bytes on their way to the site: requests, mostly.
	visitBuffer = 4 << 10
	// spliceAtOnce is how many bytes of the site's answer are spliced until the time is looked at.
	spliceAtOnce = 1 << 20
)

// visit is the connection to the borrowed site for one accepted connection. github.com/xtls/reality
// copies both ways without a bound (tls.go:334 and tls.go:467): where a visitor closed its half and
// the site never did, both were held for ever. Reading of a visit ends with os.ErrDeadlineExceeded
// once the bounds above are over; REALITY then closes both.
type visit struct {
	net.Conn

	mu         sync.Mutex
	halfClosed bool
	wrote      time.Time // when the visitor's last bytes were sent to the site
}

func newVisit(conn net.Conn) *visit { return &visit{Conn: conn} }

// extend gives the site time to say something.
func (v *visit) extend() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.extendLocked()
}

func (v *visit) extendLocked() {
	patience := SilentVisit
	if v.halfClosed {
		patience = HalfClosedVisit
	}
	_ = v.SetReadDeadline(time.Now().Add(patience))
}

// goesOn tells whether the visitor has said something while the site was silent, after a read that
// ended with err.
func (v *visit) goesOn(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.halfClosed && time.Since(v.wrote) < SilentVisit
}

// Read reads what the site says.
func (v *visit) Read(b []byte) (int, error) {
	for {
		v.extend()
		n, err := v.Conn.Read(b)
		if n == 0 && v.goesOn(err) {
			continue
		}
		return n, err
	}
}

// WriteTo copies what the site says to the visitor, in the kernel where both are sockets.
func (v *visit) WriteTo(to io.Writer) (all int64, err error) {
	for {
		v.extend()
		n, err := io.Copy(to, &io.LimitedReader{R: v.Conn, N: spliceAtOnce})
		all += n
		switch {
		case err == nil && n < spliceAtOnce: // the end
			return all, nil
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded) && n > 0, v.goesOn(err):
		default:
			return all, err
		}
	}
}

func (v *visit) Write(b []byte) (int, error) {
	v.mu.Lock()
	v.wrote = time.Now()
	v.mu.Unlock()
	return v.Conn.Write(b)
}

// ReadFrom copies what the visitor says.
func (v *visit) ReadFrom(from io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{v}, struct{ io.Reader }{from}, make([]byte, visitBuffer))
}

// CloseWrite tells the site that the visitor has sent its last byte.
func (v *visit) CloseWrite() error {
	v.mu.Lock()
	v.halfClosed = true
	v.extendLocked()
	v.mu.Unlock()
	if half, can := v.Conn.(interface{ CloseWrite() error }); can {
		return half.CloseWrite()
	}
	return v.Close()
}
