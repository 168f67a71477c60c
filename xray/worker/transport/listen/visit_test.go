package listen

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// visiting returns a visit, the site's end of it, and what copies the site's answers to the visitor:
// the time and the error of its end come on over.
func visiting(read func(*visit) error) (v *visit, site net.Conn, over chan error) {
	near, far := net.Pipe()
	v = newVisit(&halfCloser{Conn: near})
	over = make(chan error, 1)
	go func() { over <- read(v) }()
	return v, far, over
}

func byRead(v *visit) error {
	_, err := io.Copy(io.Discard, struct{ io.Reader }{v})
	return err
}

func byWriteTo(v *visit) error {
	_, err := v.WriteTo(io.Discard)
	return err
}

// A visit ends where the site says nothing to a visitor that has sent its last byte, or where both say
// nothing. It goes on while one of them speaks.
func TestVisitEnds(t *testing.T) {
	for name, read := range map[string]func(*visit) error{"Read": byRead, "WriteTo": byWriteTo} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, site, over := visiting(read)
				go func() { _, _ = io.Copy(io.Discard, site) }()
				for range 3 { // the visitor speaks
					time.Sleep(SilentVisit - time.Second)
					if n, err := v.ReadFrom(bytes.NewReader(make([]byte, 3*visitBuffer))); n != 3*visitBuffer || err != nil {
						t.Fatalf("%d bytes went to the site: %v", n, err)
					}
				}
				for range 3 { // the site speaks
					time.Sleep(SilentVisit - time.Second)
					if _, err := site.Write([]byte("a")); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(HalfClosedVisit)
				if len(over) > 0 {
					t.Fatalf("the visit ended: %v", <-over)
				}
				if err := v.CloseWrite(); err != nil || !v.Conn.(*halfCloser).closed {
					t.Errorf("the site is not told that the visitor sent its last byte: %v", err)
				}
				for range 3 { // a slow answer
					time.Sleep(HalfClosedVisit - time.Second)
					if _, err := site.Write([]byte("a")); err != nil {
						t.Fatal(err)
					}
				}
				last := time.Now()
				if err := <-over; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the visit ended with %v", err)
				}
				if got := time.Since(last); got > 2*HalfClosedVisit {
					t.Errorf("a silent site was waited for for %s", got)
				}
				_ = site.Close()
			})
		})
	}
}

// A visit where nobody speaks ends too, and one that the site closes ends without an error.
func TestSilentVisitEnds(t *testing.T) {
	for name, read := range map[string]func(*visit) error{"Read": byRead, "WriteTo": byWriteTo} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				_, _, over := visiting(read)
				if err := <-over; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) > 2*SilentVisit {
					t.Errorf("the visit ended after %s with %v", time.Since(begin), err)
				}
				_, site, over := visiting(read)
				_ = site.Close()
				if err := <-over; err != nil {
					t.Errorf("a visit that the site closed ended with %v", err)
				}
			})
		})
	}
}

// halfCloser is a connection whose half can be closed.
type halfCloser struct {
	net.Conn
	closed bool
}

func (h *halfCloser) CloseWrite() error { h.closed = true; return nil }
