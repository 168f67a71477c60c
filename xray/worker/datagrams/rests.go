package datagrams

import (
	"slices"
	"sync"
	"time"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/transport/internet/stat"
)

const (
	// maxRests bounds what is kept of datagrams that no inbound has read yet, in bytes.
	maxRests = 4 << 20
	// restAge is the age after which a rest is given up. xray-core drops datagrams that an
	// inbound does not read soon, and tells nobody.
	restAge = 10 * time.Second
)

// rests are what did not fit into xray-core's buffers, by the first byte of the buffer that has
// the beginning. A buffer is used again after its datagram was dropped; keep then forgets the
// rest of that one. So the rest that take finds for a buffer of an inbound's socket belongs to
// the datagram in it.
type rests struct {
	mu   sync.Mutex
	all  map[*byte]rest
	size int // of all rests, in bytes
}

type rest struct {
	bytes []byte
	since time.Time
}

// waiting has the rests of all inbounds, since they share xray-core's pool of buffers.
var waiting = rests{all: map[*byte]rest{}}

// keep keeps the rest of the datagram that was read into p. It returns false where there is no
// room.
func (r *rests) keep(p, bytes []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(&p[0])
	if bytes == nil {
		return true
	}
	if r.size+len(bytes) > maxRests {
		for key, old := range r.all {
			if time.Since(old.since) > restAge {
				r.forget(key)
			}
		}
	}
	if r.size+len(bytes) > maxRests {
		return false
	}
	r.all[&p[0]] = rest{bytes, time.Now()}
	r.size += len(bytes)
	return true
}

func (r *rests) forget(key *byte) {
	if old, is := r.all[key]; is {
		r.size -= len(old.bytes)
		delete(r.all, key)
	}
}

// take returns the rest of the datagram whose beginning is p, nil for none.
func (r *rests) take(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	found := r.all[&p[0]].bytes
	r.forget(&p[0])
	return found
}

// Whole makes conn return each datagram whole. It is what xray-core gives an inbound for the
// datagrams of one source, of an inbound with a Mask.
func Whole(conn stat.Connection) stat.Connection {
	if reader, is := conn.(buf.Reader); is {
		return &source{conn, reader}
	}
	return conn
}

type source struct {
	stat.Connection
	reader buf.Reader
}

// ReadMultiBuffer implements buf.Reader. A datagram that fitted into its buffer, which is nearly
// every one, is recognised by its length.
func (s *source) ReadMultiBuffer() (buf.MultiBuffer, error) {
	mb, err := s.reader.ReadMultiBuffer()
	for i, datagram := range mb {
		if datagram.Len() < buf.Size {
			continue
		}
		if rest := waiting.take(datagram.Bytes()); rest != nil {
			mb[i] = buf.FromBytes(slices.Concat(datagram.Bytes(), rest))
			mb[i].UDP = datagram.UDP
			datagram.Release()
		}
	}
	return mb, err
}
