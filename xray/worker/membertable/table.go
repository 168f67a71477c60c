package main

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/xtls/xray-core/infra/conf"

	"nodeagent/xray/members"
)

// maker makes a table. Where Xray decodes in two steps (a json.RawMessage), schemas says into
// what; where a type decodes itself, or schemas says nothing, every value passes.
type maker struct {
	table members.Table
	index map[reflect.Type]int
}

// newTable returns the table of the embedded xray-core. The same xray-core gives the same table.
func newTable() members.Table {
	m := &maker{index: map[reflect.Type]int{}}
	m.table.Types = []members.Type{{}} // type 0 takes every value
	m.table.Parts, m.table.Clients, m.table.Settings = map[string]int{}, map[string]int{}, map[string]map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		m.table.Parts[name] = m.of(parts[name])
	}
	for _, protocol := range slices.Sorted(maps.Keys(clients)) {
		m.table.Clients[protocol] = m.of(clients[protocol])
	}
	for _, name := range slices.Sorted(maps.Keys(loaders)) {
		loader := loaders[name]
		kinds := map[string]int{}
		for _, kind := range names(loader) {
			if t, ok := decodedInto(loader, kind); ok {
				kinds[kind] = m.of(t)
			}
		}
		if loader == strategyLoader {
			kinds[""] = kinds["random"] // infra/conf/router.go:41
		}
		m.table.Settings[name] = kinds
	}
	return m.table
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// of returns the index of the type t, and adds the type where the table lacks it.
func (m *maker) of(t reflect.Type) int {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) {
		return 0
	}
	if index, known := m.index[t]; known {
		return index
	}
	switch t.Kind() {
	case reflect.Struct:
		index := m.add(t)
		object := m.object(t)
		m.table.Types[index] = object
		return index
	case reflect.Slice, reflect.Array, reflect.Map:
		element := m.of(t.Elem())
		if element == 0 {
			return 0
		}
		index := m.add(t)
		if t.Kind() == reflect.Map {
			m.table.Types[index].Map = element
		} else {
			m.table.Types[index].List = element
		}
		return index
	default:
		return 0
	}
}

func (m *maker) add(t reflect.Type) int {
	m.index[t] = len(m.table.Types)
	m.table.Types = append(m.table.Types, members.Type{})
	return m.index[t]
}

// object describes a struct. Its members have their JSON names.
func (m *maker) object(t reflect.Type) members.Type {
	object := members.Type{
		Members: map[string]int{}, Passed: slices.Concat(passedOver[t], ours[t]),
		Removed: removed[t], Settings: settingsLoaders[t],
	}
	if t == reflect.TypeFor[udpMask]() {
		object.RemovedKinds = removedMasks
	}
	all := membersOf(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		of := all[name]
		if second, ok := schemas[t][strings.ToLower(name)]; ok {
			of = second
		}
		object.Members[name] = m.of(of)
	}
	return object
}

// membersOf returns a struct's members by their JSON names. Of two members whose names differ
// in case alone, encoding/json has one; so has the result.
func membersOf(t reflect.Type) map[string]reflect.Type {
	all, spelled := map[string]reflect.Type{}, map[string]string{}
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Anonymous || !field.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = field.Name
		}
		lower := strings.ToLower(name)
		delete(all, spelled[lower])
		all[name], spelled[lower] = field.Type, name
	}
	return all
}

// parts are the types of whole parts.
var parts = map[string]reflect.Type{
	"inbound":          reflect.TypeFor[conf.InboundDetourConfig](),
	"outbound":         reflect.TypeFor[conf.OutboundDetourConfig](),
	"routing":          reflect.TypeFor[conf.RouterConfig](),
	"policy":           reflect.TypeFor[conf.PolicyConfig](),
	"dns":              reflect.TypeFor[conf.DNSConfig](),
	"observatory":      reflect.TypeFor[conf.ObservatoryConfig](),
	"burstObservatory": reflect.TypeFor[conf.BurstObservatoryConfig](),
}
