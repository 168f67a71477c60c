package versions

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Misfit is a part of an inbound or outbound that a version of Xray does not take, or takes
// for something else than other versions do.
type Misfit struct {
	Text    string // a sentence without its full stop
	Refused bool   // the node refuses the whole inbound or outbound
	Newer   bool   // refused, and a newer Xray takes it
}

// Inbound returns what does not fit in Xray's object of an inbound. An object that cannot be
// read has no misfits: others refuse it.
func Inbound(raw json.RawMessage, v Version) []Misfit {
	object := decoded(raw)
	return slices.Concat(missing(object, inInbound, v), changedInbound(object, v), changedMasks(object, v))
}

// Outbound is Inbound for an outbound.
func Outbound(raw json.RawMessage, v Version) []Misfit {
	object := decoded(raw)
	return slices.Concat(missing(object, inOutbound, v), changedMasks(object, v))
}

func decoded(raw json.RawMessage) any {
	var object any
	_ = json.Unmarshal(raw, &object)
	return object
}

// missing returns the features of the object that the version does not have.
func missing(object any, in side, v Version) []Misfit {
	var all []Misfit
	protocol := text(object, "protocol")
	for _, f := range features {
		tooOld, tooNew := v.Before(f.since), f.until != (Version{}) && !v.Before(f.until)
		if !tooOld && !tooNew || f.in != inBoth && f.in != in {
			continue
		}
		if len(f.protocols) > 0 && !slices.Contains(f.protocols, protocol) || !f.foundIn(object) {
			continue
		}
		said := fmt.Sprintf("%s needs Xray %s", f.name, f.since)
		if tooNew {
			said = fmt.Sprintf("%s is gone since Xray %s", f.name, f.until)
		}
		if f.instead != "" {
			said += fmt.Sprintf("; in Xray %s it is %s", v, f.instead)
		}
		all = append(all, Misfit{said, true, !tooNew})
	}
	return all
}

func (f feature) foundIn(object any) bool {
	return slices.ContainsFunc(find(object, f.path), func(value any) bool {
		if len(f.is) == 0 {
			return value != nil
		}
		word, _ := value.(string)
		return slices.Contains(f.is, strings.ToLower(word))
	})
}

// minClientVer is when REALITY began to let in clients of Xray 26.3.27 and newer alone.
var minClientVer = Version{26, 7, 11}

func changedInbound(object any, v Version) []Misfit {
	if v.Before(minClientVer) || text(object, "streamSettings.security") != "reality" || text(object, "streamSettings.realitySettings.minClientVer") != "" {
		return nil
	}
	return []Misfit{{Text: fmt.Sprintf(`since Xray %s REALITY lets in only clients of Xray 26.3.27 and newer, no older ones, no sing-box and no mihomo, unless "minClientVer" of realitySettings is an older version such as "1.8.0"`, minClientVer)}}
}

// masksTurned is when several masks began to apply from the last to the first.
var masksTurned = Version{26, 6, 22}

func changedMasks(object any, v Version) []Misfit {
	if !v.Before(masksTurned) || len(find(object, tcpMask+"type")) < 2 && len(find(object, udpMask+"type")) < 2 {
		return nil
	}
	return []Misfit{{Text: fmt.Sprintf("before Xray %s several masks of finalmask apply from the first to the last, and since then from the last to the first: clients of the other kind do not get in", masksTurned)}}
}

// text returns the first text at a path, in lower case.
func text(object any, path string) string {
	for _, value := range find(object, path) {
		if word, is := value.(string); is {
			return strings.ToLower(word)
		}
	}
	return ""
}

// find returns the values at a path through objects, whose members have any letter case, as
// Xray reads them. The path's steps are parted by dots: "a|b" is either member, "a?" is the
// member and also the object that it is in, and "a[]" is every element of a list.
func find(object any, path string) []any {
	step, rest, more := strings.Cut(path, ".")
	var values []any
	step, optional := strings.CutSuffix(step, "?")
	if optional {
		values = append(values, object)
	}
	step, list := strings.CutSuffix(step, "[]")
	names := strings.Split(step, "|")
	members, _ := object.(map[string]any)
	for name, value := range members {
		if slices.ContainsFunc(names, func(wanted string) bool { return strings.EqualFold(wanted, name) }) {
			values = append(values, value)
		}
	}
	if list {
		var elements []any
		for _, value := range values {
			all, _ := value.([]any)
			elements = append(elements, all...)
		}
		values = elements
	}
	if !more {
		return values
	}
	var found []any
	for _, value := range values {
		found = append(found, find(value, rest)...)
	}
	return found
}
