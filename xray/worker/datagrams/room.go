package datagrams

import (
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/xtls/xray-core/transport/internet/stat"
)

const (
	// UsualRoom is how many bytes of a source xray-core lets wait until the inbound reads them: eleven full
	// datagrams. It drops the others (app/proxyman/inbound/worker.go:289). A client sends more at once over TCP
	// in a tunnel, and would send again what is dropped.
	UsualRoom = 16 << 10
	// mostWaiting is how many datagrams of a source are to wait at most. Each has a buffer of 8 KiB (buf.Size),
	// however short it is, and xray-core counts its bytes alone.
	mostWaiting = 256
	// mostWide bounds the sources that have more room at a time: they hold 128 MiB at most, and less of full
	// datagrams.
	mostWide = 64
)

// wide is how many sources have more than the usual room.
var wide atomic.Int32

// Room is how many bytes of a source wait until the inbound reads them. One goroutine uses it.
type Room struct {
	lock   *sync.Mutex
	limit  *int32
	has    int32
	counts bool // it is one of wide
}

// RoomOf returns the room of a source, which is xray-core's. conn is what Whole has returned. The caller
// closes it.
func RoomOf(conn stat.Connection) (*Room, error) {
	from, is := conn.(*source)
	if !is {
		return nil, fmt.Errorf("find the room of a source: a %T has none", conn)
	}
	lock, err := member[sync.Mutex](from.reader, "reader", "pipe", "Mutex")
	if err != nil {
		return nil, err
	}
	limit, err := member[int32](from.reader, "reader", "pipe", "option", "limit")
	if err != nil {
		return nil, err
	}
	return &Room{lock: lock, limit: limit, has: UsualRoom}, nil
}

// Fit gives a source up to so many bytes of room, and less where its datagrams are short, as those are that it
// has just sent: datagrams with this many bytes in all. It is called for a source whose address is proven.
func (r *Room) Fit(datagrams int, bytes, most int32) {
	if datagrams == 0 {
		return
	}
	if !r.counts {
		if wide.Add(1) > mostWide {
			wide.Add(-1)
			return
		}
		r.counts = true
	}
	room := max(min(most, bytes/int32(datagrams)*mostWaiting), UsualRoom)
	if room > r.has*3/4 && room <= r.has { // near enough
		return
	}
	r.set(room)
}

// Close takes the room back.
func (r *Room) Close() {
	if r.counts {
		r.set(UsualRoom)
		wide.Add(-1)
		r.counts = false
	}
}

func (r *Room) set(bytes int32) {
	r.lock.Lock()
	defer r.lock.Unlock()
	*r.limit, r.has = bytes, bytes
}

// member points to a member of a member of what a pointer in an interface points to.
func member[T any](of any, path ...string) (*T, error) {
	value := reflect.ValueOf(of)
	for _, name := range path {
		for value.Kind() == reflect.Pointer || value.Kind() == reflect.Interface {
			value = value.Elem()
		}
		if value.Kind() != reflect.Struct {
			return nil, fmt.Errorf("xray-core's %T has no %q any more", of, path)
		}
		value = value.FieldByName(name)
	}
	if !value.CanAddr() || value.Type() != reflect.TypeFor[T]() {
		return nil, fmt.Errorf("xray-core's %T has no %q that is a %s any more", of, path, reflect.TypeFor[T]())
	}
	return (*T)(unsafe.Pointer(value.UnsafeAddr())), nil
}
