package reads

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/xtls/xray-core/common/buf"

	"nodeagent/xray/xraytest"
)

// Bytes come as they were sent, however many there are, and then the end.
func TestSocketReadsAll(t *testing.T) {
	ours, theirs := xraytest.SocketPair(t)
	sent := make([]byte, 3<<20+17)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}
	go func() {
		for rest, n := sent, 1; len(rest) > 0; n = n*3 + 1 { // writes of all sizes
			n = min(n, len(rest))
			_, _ = theirs.Write(rest[:n])
			rest = rest[n:]
		}
		_ = theirs.Close()
	}()
	reader, err := Socket(ours)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	largest := 0
	for {
		mb, err := reader.ReadMultiBuffer()
		for _, b := range mb {
			if b.IsEmpty() {
				t.Fatal("a buffer is empty")
			}
			got.Write(b.Bytes())
		}
		largest = max(largest, len(mb))
		buf.ReleaseMulti(mb)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%d bytes came, other than the %d that were sent", got.Len(), len(sent))
	}
	if largest != most {
		t.Errorf("the largest read filled %d buffers, want %d", largest, most)
	}
}

// A read ends at the deadline, and when the socket is closed.
func TestSocketEnds(t *testing.T) {
	ours, _ := xraytest.SocketPair(t)
	reader, err := Socket(ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if mb, err := reader.ReadMultiBuffer(); mb != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("at the deadline: %v, %v", mb, err)
	}
	if err := ours.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := reader.ReadMultiBuffer()
		ended <- err
	}()
	_ = ours.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the close: %v", err)
	}
}

// Readers that wait hold less than a buffer each.
func TestSocketWaitsWithoutBuffer(t *testing.T) {
	const count = 100
	heap := func() uint64 {
		for range 3 { // what is in a sync.Pool lives for two collections
			runtime.GC()
		}
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	var waiting, ended sync.WaitGroup
	defer ended.Wait()
	var readers []*socket
	for range count {
		ours, theirs := xraytest.SocketPair(t)
		reader, err := Socket(ours)
		if err != nil {
			t.Fatal(err)
		}
		s := reader.(*socket)
		readers = append(readers, s)
		var once sync.Once
		s.try = func(fd uintptr) bool {
			done := s.once(fd)
			once.Do(waiting.Done)
			return done
		}
		waiting.Add(1)
		ended.Add(1)
		defer theirs.Close()
	}
	before := heap()
	for _, s := range readers {
		go func() {
			defer ended.Done()
			_, _ = s.ReadMultiBuffer()
		}()
	}
	waiting.Wait()
	if each := (int64(heap()) - int64(before)) / count; each > buf.Size/2 {
		t.Errorf("a reader that waits holds %d bytes", each)
	}
}
