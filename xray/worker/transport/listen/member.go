package listen

import (
	"fmt"
	"reflect"
)

// MemberOf points to a member of what a pointer in an interface points to.
func MemberOf[T any](of any, name string) (*T, error) {
	value := reflect.ValueOf(of)
	if value.Kind() == reflect.Pointer && value.Elem().Kind() == reflect.Struct {
		if member := value.Elem().FieldByName(name); member.IsValid() && member.Type() == reflect.TypeFor[T]() {
			return (*T)(member.Addr().UnsafePointer()), nil
		}
	}
	return nil, fmt.Errorf("xray-core's %T has no %s that is a %s any more", of, name, reflect.TypeFor[T]())
}
