package adminapi

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// membersOf returns the JSON members of a struct with their types' kinds.
func membersOf(t reflect.Type) (all []string) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous:
			all = append(all, membersOf(f.Type)...)
		case f.IsExported() && name != "-":
			all = append(all, name+" "+f.Type.Kind().String())
		}
	}
	slices.Sort(all)
	return all
}

// The client has each member of the rows that the store has types of its own for.
func TestClientKnowsAllMembers(t *testing.T) {
	for _, pair := range [][2]any{
		{corestore.Subscription{}, coreapi.Subscription{}},
		{corestore.Terms{}, coreapi.Terms{}},
		{corestore.Plan{}, coreapi.Plan{}},
		{corestore.Group{}, coreapi.Group{}},
		{userDetails{}, coreapi.UserDetails{}},
		{subscriptionDetails{}, coreapi.SubscriptionDetails{}},
		{groupDetails{}, coreapi.GroupDetails{}},
	} {
		stored, client := membersOf(reflect.TypeOf(pair[0])), membersOf(reflect.TypeOf(pair[1]))
		if !slices.Equal(stored, client) {
			t.Errorf("%T has the members\n%q, and %T has\n%q", pair[0], stored, pair[1], client)
		}
	}
}
