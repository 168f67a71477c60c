package datagrams

import (
	"fmt"
	"reflect"
	"sync"
	"unsafe"

	"github.com/xtls/xray-core/transport/internet/stat"
)

// Widen lets so many bytes of a source wait until the inbound reads them. conn is what Whole has returned.
// xray-core lets 16 KiB wait, eleven full datagrams, and drops the others
// (app/proxyman/inbound/worker.go:289). A client sends more at once over TCP in a tunnel, and would send
// again what is dropped.
func Widen(conn stat.Connection, bytes int32) error {
	from, is := conn.(*source)
	if !is {
		return fmt.Errorf("widen the buffer of a source: a %T has none", conn)
	}
	lock, err := member[sync.Mutex](from.reader, "reader", "pipe", "Mutex")
	if err != nil {
		return err
	}
	limit, err := member[int32](from.reader, "reader", "pipe", "option", "limit")
	if err != nil {
		return err
	}
	lock.Lock()
	defer lock.Unlock()
	*limit = bytes
	return nil
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
